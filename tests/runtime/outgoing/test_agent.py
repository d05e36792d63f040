"""The relay's HTTP client: bounded, without lines in the log, and made only if it is used."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from tests.end_to_end.harness import environment
from tests.support.push import Line
from treq.content import content
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from pyryrelay.runtime.outgoing.agent import IDLE_S, MAX_ANSWER_BYTES, OutgoingHttp

URL = b"http://127.0.0.1:4000/x"


class Client:
    """A client in memory and the lines that it opens."""

    def __init__(self) -> None:
        self.clock: Any = MemoryReactorClock()
        self.outgoing = OutgoingHttp(self.clock)

    def get(self, url: bytes = URL) -> Deferred[Any]:
        """Begin a request whose failure the test looks at."""
        return self.outgoing.agent().request(b"GET", url)

    def line(self, number: int = -1) -> Line:
        """Accept a connection."""
        _, port, factory, *_ = self.clock.tcpClients[number]
        return Line(self.clock, port, factory)


@implementer(ILogObserver)
class Everything:
    """Everything that is logged, Twisted's lines too."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)


@pytest.fixture
def client() -> Client:
    """A client that has not been used."""
    return Client()


def has_aborted(line: Line) -> bool:
    """Return whether the client has cut a connection off."""
    return line.was_aborted


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """Return a list that gets the result, or the exception."""
    results: list[Any] = []
    deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


def test_an_answer(client: Client) -> None:
    """A request is sent and its answer received."""
    bodies = outcome(client.get().addCallback(content))
    line = client.line()
    request = line.request()
    assert request is not None
    assert request.target == "/x"
    line.answer(body=b"hello")
    assert bodies == [b"hello"]


def test_there_is_one_client(client: Client) -> None:
    """All users share its connections."""
    assert client.outgoing.agent() is client.outgoing.agent()


@pytest.mark.parametrize("part", [b"X: y\r\n", b"X" * 1000, b"X: " + b"y" * 997 + b"\r\n"])
def test_an_endless_head_is_cut_off(client: Client, part: bytes) -> None:
    """Twisted's client bounds the lines of a head, but not their number."""
    results = outcome(client.get())
    line = client.line()
    line.request()
    line.feed(b"HTTP/1.1 200 OK\r\n")
    for _ in range(2 * MAX_ANSWER_BYTES // len(part)):
        line.feed(part)
    assert line.was_aborted
    client.clock.advance(0)
    assert len(results) == 1
    assert isinstance(results[0], Exception)


def test_a_long_body_is_cut_off(client: Client) -> None:
    """An answer may have 64 KiB."""
    results = outcome(client.get().addCallback(content))
    line = client.line()
    line.request()
    line.feed(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER_BYTES - 100))
    assert not line.was_aborted
    line.feed(b"x" * 100)
    assert has_aborted(line)
    client.clock.advance(0)
    assert len(results) == 1


def test_each_answer_is_counted_for_itself(client: Client) -> None:
    """A connection that is kept may receive any number of answers."""
    first = outcome(client.get().addCallback(content))
    line = client.line()
    for _ in range(4):
        line.request()
        line.answer(body=b"x" * (MAX_ANSWER_BYTES // 2))
        again = outcome(client.get().addCallback(content))
    line.request()
    line.answer(body=b"last")
    assert again == [b"last"]
    assert len(first) == 1
    assert len(client.clock.tcpClients) == 1


def test_idle_connections_are_cut_off(client: Client) -> None:
    """An idle connection is kept for a minute; the peer cannot delay its end."""
    outcome(client.get().addCallback(content))
    line = client.line()
    line.request()
    line.answer()
    client.clock.advance(IDLE_S - 1)
    assert not line.was_aborted
    client.clock.advance(1)
    assert line.was_aborted


def test_closing_ends_idle_connections(client: Client) -> None:
    """At the end of the relay, nothing is left open."""
    outcome(client.get().addCallback(content))
    line = client.line()
    line.request()
    line.answer()
    closed = outcome(client.outgoing.close())
    assert line.was_aborted
    client.clock.advance(0)
    assert len(closed) == 1
    assert not client.clock.getDelayedCalls()


def test_closing_what_was_not_used(client: Client) -> None:
    """A relay without requests has nothing to close."""
    assert outcome(client.outgoing.close()) == [None]


def test_connecting_takes_a_bounded_time(client: Client) -> None:
    """The operating system's own timeout is minutes long."""
    results = outcome(client.get())
    assert client.clock.tcpClients[0][3] == 5.0
    client.clock.tcpClients[0][2].clientConnectionFailed(None, ConnectTimeoutError())
    client.clock.advance(1)
    assert len(results) == 1


@pytest.mark.parametrize("url", [b"ftp://127.0.0.1/", b"file:///etc/passwd"])
def test_other_schemes_are_refused(client: Client, url: bytes) -> None:
    """Only HTTP and HTTPS are spoken."""
    with pytest.raises(ValueError, match="only http"):
        client.get(url)
    assert not client.clock.tcpClients


def test_nothing_is_logged(client: Client) -> None:
    """Twisted logs the factories of connections by default, and their text may name what is requested."""
    log = Everything()
    globalLogPublisher.addObserver(log)
    try:
        outcome(client.get())
        line = client.line()
        client.clock.tcpClients[0][2].doStart()
        line.request()
        line.feed(b"nonsense\r\n\r\n")
        client.clock.tcpClients[0][2].doStop()
        client.clock.advance(0)
    finally:
        globalLogPublisher.removeObserver(log)
    assert log.events == []


def test_https_checks_the_certificate(client: Client) -> None:
    """A TLS connection begins with a client hello, and plain text in return is an error."""
    results = outcome(client.get(b"https://127.0.0.1:4000/x"))
    line = client.line()
    assert line.transport.value()[:2] == b"\x16\x03"
    line.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    client.clock.advance(0)
    assert len(results) == 1
    assert isinstance(results[0], Exception)


def test_twisteds_client_is_imported_when_used() -> None:
    """The start of a relay that makes no requests does not pay for it."""
    code = (
        "import sys; from pyryrelay.runtime.outgoing.agent import OutgoingHttp; OutgoingHttp(None); "
        "sys.exit('twisted.web.client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
