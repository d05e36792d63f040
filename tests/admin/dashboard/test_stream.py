"""The stream of samples: bounded in listeners, in what waits for each, and in time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.admin import Client, Exchange, open_access
from twisted.internet.task import Clock

from pyryrelay.admin.dashboard.samples import HISTORY
from pyryrelay.admin.dashboard.stream import MAX_LISTENERS, SLICE, SLOW_S, Stream
from pyryrelay.admin.site import admin_site


class Page:
    """A stream, and those who listen to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.stream = Stream(self.clock.seconds, lambda: {"version": "26.11"})
        self._site = admin_site({}, self.clock, {}, open_access(), {"/events": self.stream})

    def listen(self) -> Exchange:
        """Return one more listener."""
        return Client(self._site).begin("GET", "/events")

    def add(self, number: int, refusals: tuple[dict[str, int], ...] = ()) -> None:
        """A second passes."""
        self.clock.advance(1)
        self.stream.add({"n": number}, refusals)


def received(exchange: Exchange) -> list[tuple[str, Any]]:
    """Return the events that have arrived."""
    text = exchange.sent.partition(b"\r\n\r\n")[2]
    body, size = b"", 0
    while text:
        line, _, text = text.partition(b"\r\n")
        size = int(line, 16)
        body, text = body + text[:size], text[size + 2 :]
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], json.loads(fields["data"])))
    return found


def numbers(exchange: Exchange) -> list[int]:
    """Return the samples that have arrived."""
    return [data["n"] for name, data in received(exchange) if name == "sample"]


@pytest.fixture
def page() -> Page:
    """A stream without samples."""
    return Page()


def test_a_listener(page: Page) -> None:
    """It is told what every page needs, then the samples that are kept, then each new one."""
    for number in range(3):
        page.add(number)
    listener = page.listen()
    assert received(listener)[0] == ("hello", {"version": "26.11", "samples": 3})
    page.add(3)
    assert numbers(listener) == [0, 1, 2, 3]
    head = listener.sent.partition(b"\r\n\r\n")[0].decode()
    assert "HTTP/1.1 200 OK" in head
    assert "Content-Type: text/event-stream; charset=utf-8" in head
    assert "Cache-Control: no-store" in head


def test_refusals_are_sent_and_not_kept(page: Page) -> None:
    """Those who listen get them; a page that is opened later is told the last ones otherwise."""
    listener = page.listen()
    page.add(0, ({"status": 429},))
    page.add(1)
    assert [data for name, data in received(listener) if name == "refusals"] == [[{"status": 429}]]
    assert [name for name, _ in received(page.listen())] == ["hello", "sample", "sample"]


def test_the_number_of_listeners_is_bounded(page: Page) -> None:
    """One more is answered 503, until another leaves."""
    listeners = [page.listen() for _ in range(MAX_LISTENERS)]
    refused = page.listen().response
    assert (refused.status, refused.fields["Retry-After"]) == (503, "10")
    listeners[0].disconnect()
    assert len(page.stream.listeners) == MAX_LISTENERS - 1
    page.add(0)
    assert numbers(page.listen()) == [0]


def test_a_slow_listener_is_given_slices(page: Page) -> None:
    """While the connection takes nothing, nothing is written; then it goes on where it was."""
    for number in range(HISTORY + 5):
        page.add(number)
    listener = page.listen()
    assert len(numbers(listener)) == HISTORY
    (one,) = page.stream.listeners
    one.pauseProducing()
    size = len(listener.sent)
    for number in range(HISTORY + 5, HISTORY + 5 + 10):
        page.add(number, ({"status": 429},))
    assert len(listener.sent) == size
    one.resumeProducing()
    assert numbers(listener)[-10:] == list(range(HISTORY + 5, HISTORY + 15))
    assert [name for name, _ in received(listener)].count("refusals") == 0


def test_a_slow_listener_is_paused_between_slices(page: Page) -> None:
    """The history is written a slice at a time, and no further once the connection asks to pause."""
    for number in range(5 * SLICE):
        page.add(number)
    listener = page.listen()
    (one,) = page.stream.listeners
    one.pauseProducing()
    one._next = page.stream.history.start
    written: list[bytes] = []

    def write(data: bytes) -> None:
        written.append(data)
        one.pauseProducing()

    one.request.write = write  # type: ignore[method-assign]
    one.resumeProducing()
    assert len(written) == 1
    assert written[0].count(b"event: sample") == SLICE
    assert listener.sent


def test_a_listener_that_takes_nothing_is_dropped(page: Page) -> None:
    """After some seconds its connection is cut off, and its place is free."""
    listener = page.listen()
    (one,) = page.stream.listeners
    one.pauseProducing()
    page.clock.advance(SLOW_S - 2)
    page.add(0)
    assert not listener.is_cut_off
    page.add(1)
    page.add(2)
    assert listener.is_cut_off


def test_the_end(page: Page) -> None:
    """All answers end when the relay stops, and no other begins."""
    listener = page.listen()
    page.stream.stop()
    assert listener.sent.endswith(b"0\r\n\r\n")
    assert not page.stream.listeners
    assert page.listen().response.status == 503
    page.add(0)


def test_the_state_of_workers_is_sent_and_not_kept(page: Page) -> None:
    """It is an event of its own, after the sample and the refusals of the second."""
    exchange = page.listen()
    page.stream.add({"n": 0}, [{"reason": "jailed"}], [{"index": 0}, {"index": 1}])
    assert [name for name, _ in received(exchange)][-3:] == ["sample", "refusals", "workers"]
    assert received(exchange)[-1] == ("workers", [{"index": 0}, {"index": 1}])
    assert [name for name, _ in received(page.listen())] == ["hello", "sample"]


def test_the_state_of_a_cluster_is_sent_and_not_kept(page: Page) -> None:
    """It is the last event of the second."""
    exchange = page.listen()
    page.stream.add({"n": 0}, workers=[{"index": 0}], cluster={"name": "relay"})
    assert received(exchange)[-1] == ("cluster", {"name": "relay"})
    assert [name for name, _ in received(page.listen())] == ["hello", "sample"]
