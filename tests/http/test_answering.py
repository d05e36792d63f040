"""One answer to a connection that is not upgraded: now or later, large or small, and the end of its connection."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.asking import HEALTH, answered, ask, status
from tests.support.harness import ALICE, DATE, PATH, Connection, LogReader, World, request_head
from tests.support.listening import Peer, Place, own_reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol

from pyryrelay.http.answering import ANSWER_TIMEOUT_S, DISCARD_BYTES, LINGER_S
from pyryrelay.http.message import response
from pyryrelay.listen.listeners import Listeners
from pyryrelay.protocol import HttpAnswer, HttpRefusal, HttpRequest, Page, RepeatedHeaderError
from pyryrelay.runtime.timer_wheel import SLOT_S

PLAIN = request_head(without=["Upgrade"])
PAGE = Page(200, (("Content-Type", "text/plain"),), b"later")
PAGE_BYTES = (
    b"HTTP/1.1 200 OK" + DATE + b"Content-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlater"
)

PAGE_BODY, TOO_MUCH = bytes(1 << 20), bytes(1 << 24)
"""A page, and one of which the kernel takes only a part."""
BUFFER_BYTES, STEP_BYTES, BYTES_PER_S = 64 * 1024, 256 * 1024, 1_000_000
"""What a slow reader's socket holds, what it takes at once, and how fast it is."""
TIMEOUT_S = 60.0


@dataclass
class Later:
    """An application that answers when the test wants it to."""

    answers: list[Deferred[HttpAnswer]] = field(default_factory=list)
    cancelled: list[Deferred[HttpAnswer]] = field(default_factory=list)

    def __call__(self, request: HttpRequest) -> Deferred[HttpAnswer]:
        """Promise an answer."""
        self.answers.append(Deferred(self.cancelled.append))
        return self.answers[-1]


@pytest.fixture
def later() -> Later:
    """An application that has promised nothing yet."""
    return Later()


@pytest.fixture
def world(later: Later) -> World:
    """A world whose application answers later."""
    world = World()
    world.application.on_http = later
    return world


def end(world: World, connection: Connection) -> None:
    """Close as the peer, and check that nothing is left."""
    connection.transport.lose()
    world.assert_empty()


# Answers of an application


def test_an_answer_may_come_later(world: World, later: Later) -> None:
    """The connection holds its lease until its answer comes, and is answered once."""
    connection = ask(world, PLAIN)
    world.pass_time(ANSWER_TIMEOUT_S - 0.25)
    assert connection.take() == b""
    assert world.gate.leases.handshakes == 1
    later.answers[0].callback(PAGE)
    assert answered(connection) == PAGE_BYTES
    assert world.observer.refusals == []
    end(world, connection)
    assert later.cancelled == []


def test_an_answer_may_be_there_already(world: World) -> None:
    """A Deferred that has fired is an answer at once."""
    world.application.on_http = lambda request: succeed(PAGE)
    connection = ask(world, PLAIN)
    assert answered(connection) == PAGE_BYTES
    end(world, connection)


def test_head_is_answered_without_the_body(world: World, later: Later) -> None:
    """The application learns the method, and answers HEAD as GET."""
    connection = ask(world, PLAIN.replace(b"GET", b"HEAD"))
    assert [request.method for request in world.application.http_requests] == ["HEAD"]
    later.answers[0].callback(PAGE)
    assert answered(connection) == PAGE_BYTES.removesuffix(b"later")
    end(world, connection)


@pytest.mark.parametrize(
    ("refusal", "fields"),
    [
        (HttpRefusal(404, "unknown_path"), b""),
        (HttpRefusal(405, "bad_method", (("Allow", "GET, POST"),)), b"Allow: GET, POST\r\n"),
        (HttpRefusal(426, "no_upgrade"), b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
    ],
)
def test_a_refusal_may_come_later(world: World, later: Later, refusal: HttpRefusal, fields: bytes) -> None:
    """A later refusal is observed once, under the application's name, with the fields that its status requires."""
    connection = ask(world, PLAIN)
    assert world.observer.refusals == []
    later.answers[0].callback(refusal)
    answer = answered(connection)
    assert answer.partition(DATE)[2].startswith(fields + b"Content-Length: 0\r\n")
    assert world.observer.refusals == [("server", refusal.status, refusal.reason, ALICE)]
    end(world, connection)


def test_a_failure_is_500(world: World, later: Later) -> None:
    """A failure is logged with its traceback, and counts against no client."""
    with LogReader() as log:
        connection = ask(world, PLAIN)
        later.answers[0].errback(RuntimeError("secret"))
    assert status(connection) == 500
    assert log.failures == ["A request could not be answered"]
    assert world.observer.refusals == [(None, 500, "internal_error", "None")]
    end(world, connection)


def test_an_answer_of_another_type_is_500(world: World, later: Later) -> None:
    """An answer of another type is a fault of the application like any other."""
    with LogReader() as log:
        connection = ask(world, PLAIN)
        later.answers[0].callback("nonsense")  # type: ignore[arg-type]
    assert status(connection) == 500
    assert log.failures == ["A request could not be answered"]
    end(world, connection)


def test_a_repeated_header_is_400(world: World, later: Later) -> None:
    """A header that the application finds repeated is the client's fault, even late, and nothing is logged."""
    with LogReader() as log:
        connection = ask(world, PLAIN)
        later.answers[0].errback(RepeatedHeaderError("x-a"))
    assert status(connection) == 400
    assert world.observer.refusals == [("server", 400, "repeated_header", ALICE)]
    assert log.failures == []
    end(world, connection)


def test_an_answer_that_does_not_come_is_503(world: World, later: Later) -> None:
    """Without an answer in time the application is cancelled, and the client is not at fault."""
    connection = ask(world, PLAIN)
    world.pass_time(ANSWER_TIMEOUT_S + SLOT_S)
    assert status(connection) == 503
    assert world.observer.refusals == [("server", 503, "slow_answer", "None")]
    assert later.cancelled == later.answers
    end(world, connection)


@pytest.mark.parametrize("late", [lambda answer: answer.callback(PAGE), lambda answer: answer.errback(RuntimeError())])
def test_what_comes_too_late_is_ignored(world: World, late: Callable[[Deferred[HttpAnswer]], None]) -> None:
    """A late answer or failure of an application that ignores its cancellation is neither sent nor logged."""
    kept: list[Deferred[HttpAnswer]] = []

    def stubborn(request: HttpRequest) -> Deferred[HttpAnswer]:
        kept.append(Deferred(lambda _: None))
        return kept[-1]

    world.application.on_http = stubborn
    connection = ask(world, PLAIN)
    kept[0].addErrback(lambda failure: failure.trap(CancelledError))
    with LogReader() as log:
        connection.transport.lose()
        assert kept[0].called
    assert log.failures == []
    assert connection.take() == b""
    world.assert_empty()


def test_a_peer_that_leaves_cancels_its_answer(world: World, later: Later) -> None:
    """If the peer leaves, nothing is sent, observed or held any more."""
    connection = ask(world, PLAIN)
    connection.transport.lose()
    assert later.cancelled == later.answers
    assert connection.take() == b""
    assert world.observer.refusals == []
    world.assert_empty()


def test_a_peer_that_ends_its_side_is_answered(world: World, later: Later) -> None:
    """A peer that ends its write side behind its request still gets its answer, and the connection is closed then."""
    connection = ask(world, PLAIN)
    assert IHalfCloseableProtocol.providedBy(connection.protocol)
    connection.protocol.readConnectionLost()
    assert later.cancelled == []
    later.answers[0].callback(PAGE)
    assert connection.take() == PAGE_BYTES
    assert connection.is_closed()
    connection.settle()
    world.assert_empty()


def test_an_end_counts_as_usual_when_nothing_is_awaited(world: World, later: Later) -> None:
    """Before a request, and behind an answer, a peer that ends its side is no longer there."""
    connection = world.connect()
    assert not IHalfCloseableProtocol.providedBy(connection.protocol)
    connection.transport.lose()
    connection = ask(world, PLAIN)
    later.answers[0].callback(PAGE)
    assert not IHalfCloseableProtocol.providedBy(connection.protocol)
    assert answered(connection) == PAGE_BYTES


def test_a_shutdown_cancels_answers(world: World, later: Later) -> None:
    """A connection that waits for its answer is cut off at the shutdown."""
    connection = ask(world, PLAIN)
    world.live.drain()
    world.context.waiting.shut_down()
    assert later.cancelled == later.answers
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()


def test_draining_does_not_stop_an_answer(world: World, later: Later) -> None:
    """While draining new requests are refused, and earlier ones are answered."""
    connection = ask(world, PLAIN)
    world.live.drain()
    assert status(ask(world, PLAIN)) == 503
    later.answers[0].callback(PAGE)
    assert answered(connection) == PAGE_BYTES


def test_a_fault_in_cancelling_holds_nothing(world: World) -> None:
    """A fault in cancelling is logged, and the lease is released."""

    def fail(answer: Deferred[Any]) -> None:
        raise RuntimeError("planted")

    world.application.on_http = lambda request: Deferred(fail)
    connection = ask(world, PLAIN)
    with LogReader() as log:
        connection.transport.lose()
    assert log.failures == ["An application failed"]
    world.assert_empty()


def test_what_follows_a_request_waits_for_no_answer(world: World, later: Later) -> None:
    """A body is discarded while the answer is awaited, and a large one is not read."""
    connection = ask(world, PLAIN + b"body")
    connection.feed(b"x" * DISCARD_BYTES)
    assert connection.is_read()
    connection.feed(b"x")
    assert not connection.is_read()
    later.answers[0].callback(PAGE)
    assert answered(connection) == PAGE_BYTES
    end(world, connection)


# The end


def test_an_answered_connection_ends_its_write_side() -> None:
    """An answered connection is closed when the peer has ended its side, or after `LINGER_S`."""
    world = World()
    connection = ask(world, HEALTH)
    connection.transport.peer_stays = True
    assert connection.has_ended()
    world.pass_time(LINGER_S - 0.25)
    assert not connection.is_closed()
    world.pass_time(0.25 + SLOT_S)
    assert connection.is_closed()
    connection.settle()
    world.assert_empty()


def test_what_follows_an_answer_is_discarded() -> None:
    """Data after an answer is discarded up to a bound, beyond which nothing is read until the linger time is over."""
    world = World()
    connection = ask(world, HEALTH)
    connection.transport.peer_stays = True
    for _ in range(DISCARD_BYTES // 1024):
        connection.feed(b"x" * 1024)
    assert connection.is_read()
    connection.feed(b"x")
    assert not connection.is_read()
    assert not connection.is_closed()
    world.pass_time(LINGER_S + SLOT_S)
    assert connection.is_closed()
    connection.settle()
    world.assert_empty()


def test_a_shutdown_closes_answered_connections_in_order() -> None:
    """Answered connections are not reset at the shutdown, which could destroy their answers."""
    world = World()
    connection = ask(world, HEALTH)
    connection.transport.peer_stays = True
    world.context.waiting.shut_down()
    assert connection.is_closed()
    assert not connection.is_cut_off()
    connection.settle()
    world.assert_empty()


# With real sockets


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """One reactor for all tests here."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture
def place(reactor: Any) -> Iterator[Place]:
    """A port of Twisted's, and a world behind it whose application has a page of 1 MiB."""
    place = Place(reactor, World(), has_acceptor=False)
    place.world.application.on_http = lambda request: Page(200, (), PAGE_BODY)
    yield place
    place.close()


def receive(place: Place, peer: Peer, size: int) -> int:
    """Let the peer read this much, or to the end, and return how much there was."""
    found, give_up_at_s = 0, time.monotonic() + TIMEOUT_S
    while found < size and time.monotonic() < give_up_at_s:
        try:
            data = peer.sock.recv(min(65536, size - found))
        except BlockingIOError:
            place.turn(1)
            continue
        if not data:
            break
        found += len(data)
    place.turn()
    return found


def test_a_large_page_reaches_a_slow_reader(place: Place) -> None:
    """A peer that goes on reading has all the time that it needs."""
    peer = place.connect(buffer_bytes=BUFFER_BYTES)
    peer.send(PLAIN)
    taken = 0
    while found := receive(place, peer, STEP_BYTES):
        taken += found
        place.world.pass_time(STEP_BYTES / BYTES_PER_S)
    assert taken == len(response(200, [], PAGE_BODY)) + len(DATE) - 2


def test_a_reader_that_stops_is_cut_off(place: Place) -> None:
    """A peer that stops reading has `LINGER_S` from its last read."""
    place.world.application.on_http = lambda request: Page(200, (), TOO_MUCH)
    peer = place.connect(buffer_bytes=BUFFER_BYTES)
    peer.send(PLAIN)
    for _ in range(2):
        assert receive(place, peer, STEP_BYTES)
        place.world.pass_time(LINGER_S)
    assert place.world.context.waiting
    place.world.pass_time(2 * LINGER_S)
    place.turn()
    assert not place.world.context.waiting
    place.world.assert_empty()


def test_a_shutdown_cuts_off_readers_of_large_pages(place: Place) -> None:
    """At the shutdown the unread rest of a large page is lost."""
    place.world.application.on_http = lambda request: Page(200, (), TOO_MUCH)
    peer = place.connect(buffer_bytes=BUFFER_BYTES)
    peer.send(PLAIN)
    assert receive(place, peer, STEP_BYTES)
    place.world.context.waiting.shut_down()
    place.turn()
    place.world.assert_empty()


@pytest.mark.parametrize("size", [DISCARD_BYTES // 2, 4 * DISCARD_BYTES])
def test_an_answer_survives_a_body_that_arrives_behind_it(place: Place, size: int) -> None:
    """A peer that sends its body before it reads gets the answer, and no reset."""
    place.world.application.on_http = lambda request: HttpRefusal(405, "bad_method")
    peer = place.connect()
    peer.send(request_head(PATH, f"Content-Length: {size}", method="POST", without=["Upgrade"]))
    sent = 0
    for _ in range(200):
        try:
            sent += peer.sock.send(bytes(min(4096, size - sent)))
        except BlockingIOError:
            break
        place.turn(1)
        if sent == size:
            break
    answer, end = peer.read()
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert end == "closed"
    place.world.pass_time(LINGER_S + SLOT_S)


def test_an_answer_to_a_peer_that_has_ended_its_side(place: Place) -> None:
    """A request is answered even if the peer's end arrives with it."""
    peer = place.connect()
    peer.sock.send(HEALTH)
    peer.finish()
    answer, end = peer.read()
    assert answer.endswith(b"\r\n\r\nok")
    assert end == "closed"


PROXY_HEADER = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"


@pytest.mark.parametrize("scheme", ["haproxy", "unix"])
@pytest.mark.parametrize(("request_bytes", "body"), [(HEALTH, b"ok"), (PLAIN, PAGE_BODY)])
def test_answers_of_any_size_on_other_transports(
    reactor: Any, tmp_path: Path, scheme: str, request_bytes: bytes, body: bytes
) -> None:
    """They arrive whole on UNIX sockets and below a PROXY header, also if the peer ends its side at once."""
    world = World(behind_proxy_protocol=scheme == "haproxy")
    world.application.on_http = lambda request: Page(200, (), PAGE_BODY)
    path = tmp_path / "s"
    listeners = Listeners(reactor)
    endpoint = f"unix:{path}" if scheme == "unix" else "haproxy:tcp:0:interface=127.0.0.1"
    listeners.open("--listen", endpoint, world.http_factory)
    received, give_up_at_s = b"", time.monotonic() + TIMEOUT_S
    with socket.socket(socket.AF_UNIX if scheme == "unix" else socket.AF_INET) as sock:
        sock.connect(str(path) if scheme == "unix" else listeners.sockets[0].getsockname())
        sock.send((PROXY_HEADER if scheme == "haproxy" else b"") + request_bytes)
        sock.shutdown(socket.SHUT_WR)
        sock.setblocking(False)
        while time.monotonic() < give_up_at_s:
            reactor.runUntilCurrent()
            reactor.doIteration(0)
            with contextlib.suppress(BlockingIOError):
                if not (data := sock.recv(65536)):
                    break
                received += data
    listeners.close()
    reactor.runUntilCurrent()
    reactor.doIteration(0)
    assert received.partition(b"\r\n\r\n")[2] == body
    world.assert_empty()
