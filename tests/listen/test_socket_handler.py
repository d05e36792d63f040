"""What becomes of one accepted socket."""

from __future__ import annotations

import functools
import gc
import os
import socket
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.frames import frame
from tests.support.harness import PATH, LogReader, World, request_head
from tests.support.listening import (
    LOCALHOST,
    OTHER,
    PAGE,
    PLAIN,
    PROXIED,
    THIRD,
    Place,
    Readers,
    adopted,
    application,
    jail_other,
    use_up,
)
from twisted.internet.defer import Deferred

from pyryrelay.guard import CidrSet, GateConfig, Reason, Refusal
from pyryrelay.http import connection as http_connection
from pyryrelay.http.answering import LINGER_S
from pyryrelay.http.connection import HttpConnection
from pyryrelay.listen import socket_handler
from pyryrelay.listen.accept import Acceptor
from pyryrelay.listen.exhaustion import PAUSE_S
from pyryrelay.listen.sockets import SEND_BYTES
from pyryrelay.protocol import HttpRefusal
from pyryrelay.runtime.socket_options import NOTSENT_BYTES, RECEIVE_BUFFER_BYTES
from pyryrelay.websocket.connection import Connection


@pytest.mark.parametrize("data", [request_head(), request_head() + b"more", request_head(f"{PATH}?a")])
def test_a_refused_attempt_gets_no_protocol(place: Place, data: bytes) -> None:
    """A plain attempt without a token is answered and closed, without a protocol or a timer."""
    use_up(place)
    built = adopted(place)
    answer, end = place.ask(data)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert end == "closed"
    assert not built
    assert len(place.world.wheel) == 0


@pytest.mark.parametrize("reason", [Reason.DENIED, Reason.JAILED])
@pytest.mark.usefixtures("loopback_can_be_jailed")
def test_a_jailed_or_denied_client_gets_no_protocol(reactor: Any, reason: Reason) -> None:
    """Denied and jailed clients are refused at accept."""
    place = Place(reactor, World(gate=GateConfig(deny=CidrSet([OTHER]))), has_acceptor=True)
    built = adopted(place)
    if reason is Reason.JAILED:
        jail_other(place)
    answer, end = place.ask(b"anything", OTHER)
    assert (answer[9:12], end) == ((b"", "reset") if reason is Reason.JAILED else (b"403", "closed"))
    assert place.world.observer.counts[reason] == 1
    assert not built
    place.close()


def test_a_jailed_client_behind_a_proxy_gets_no_protocol(loopback_can_be_jailed: None, place: Place) -> None:
    """A jailed client that a trusted proxy names is cut off without a protocol, too."""
    place.world.live.configure(PROXIED, place.world.live.dropped)
    built = adopted(place)
    jail_other(place)
    assert place.ask(request_head(PATH, f"X-Forwarded-For: {OTHER}")) == (b"", "reset")
    assert place.ask(request_head(PATH, f"X-Forwarded-For: {THIRD}"))[0].startswith(b"HTTP/1.1 101 ")
    assert len(built) == 1


def test_other_connections_are_adopted_once(place: Place) -> None:
    """The protocol gets what was read, in order, and the first bytes are not lost."""
    built = adopted(place)
    peer = place.connect()
    for byte in request_head():
        peer.send(bytes([byte]))
    answer, end = peer.read()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert (end, len(built)) == ("open", 1)


def test_a_silent_connection_is_adopted_in_the_end(place: Place) -> None:
    """A connection that the kernel does not keep any longer is dropped by an `HttpConnection` in its own time."""
    place.hand_over_silence()
    peer = place.connect()
    place.turn()
    assert place.world.gate.leases.handshakes == 1
    place.world.pass_time(6.0)
    place.turn()
    assert peer.read()[1] in ("closed", "reset")
    assert place.world.gate.leases.handshakes == 0


def test_options_of_accepted_sockets(place: Place) -> None:
    """They are close-on-exec and non-blocking, like Twisted's, and inherit the options of the listening socket."""
    built = adopted(place)
    place.ask(b"GET")
    (transport,) = built
    sock = transport.getHandle()
    assert not os.get_inheritable(sock.fileno())
    assert not os.get_blocking(sock.fileno())
    assert transport.is_tuned
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_TCP, 25) == NOTSENT_BYTES  # TCP_NOTSENT_LOWAT
    # Linux takes twice as much, for what it needs around the bytes.
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * RECEIVE_BUFFER_BYTES


def test_a_connection_that_has_ended_is_freed_at_once(place: Place) -> None:
    """It leaves nothing to the garbage collector, also if its session waits, or a message is incomplete.

    A collection would delay all peers after ten thousand connections have ended.
    """
    assert place.ask(request_head())[0].startswith(b"HTTP/1.1 101 ")
    (session,) = place.world.application.sessions
    session.peer.on_drain = functools.partial(session.closed, 1000, "")
    session.peer.ping(functools.partial(session.closed, 1000, ""))
    (protocol,) = place.world.factory.open
    protocol.dataReceived(frame(b"x" * 1000)[:-1])
    ended = weakref.ref(protocol)
    assert repr(protocol.transport) == "<Connection,1,127.0.0.1>"
    del protocol, session
    gc.collect()
    gc.disable()
    try:
        place.leave()
        place.world.application.sessions.clear()
        assert ended() is None
    finally:
        gc.enable()


def test_our_own_fault_ends_one_connection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged with its traceback, and the next connection is served."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    use_up(place)
    with monkeypatch.context() as patch, LogReader() as log:
        patch.setattr(socket_handler, "refuse_attempt", fail)
        assert place.ask(request_head())[0] == b""
        patch.setattr(place.world.http_factory.buildProtocol(None).__class__, "dataReceived", fail)
        answer, end = place.ask(b"GET")
        assert (answer, end) == (b"", "reset")
    assert log.failures == ["A connection could not be accepted"] * 2
    assert place.ask(request_head())[0].startswith(b"HTTP/1.1 429 ")


def test_an_application_that_fails_is_answered_with_500(place: Place) -> None:
    """The client gets 500 and one failure is logged, as in an `HttpConnection`; the next connection is served."""

    def fail(request: object) -> HttpRefusal | None:
        raise RuntimeError("planted")

    gate, place.world.application.gate = place.world.application.gate, fail
    with LogReader() as log:
        assert place.ask(request_head())[0].startswith(b"HTTP/1.1 500 ")
    assert log.failures == ["A request could not be answered"]
    place.world.application.gate = gate
    assert place.ask(request_head())[0].startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("size", [0, SEND_BYTES // 2])
def test_an_answer_that_is_there_at_once_needs_no_protocol(place: Place, size: int) -> None:
    """An answer that fits into one send is sent at accept, and the connection is closed."""
    built = adopted(place)
    application(place, lambda request: replace(PAGE, body=bytes(size)))
    answer, end = place.ask(PLAIN)
    assert answer.endswith(b"\r\n\r\n" + bytes(size))
    assert end == "closed"
    assert not built
    assert len(place.world.wheel) == 0


@pytest.mark.parametrize("answer", [lambda: replace(PAGE, body=bytes(SEND_BYTES)), Deferred])
def test_other_answers_are_handed_over(place: Place, answer: Callable[[], Any]) -> None:
    """A large or later answer goes to one `HttpConnection`; the application is asked once, and paid for once."""
    built = adopted(place)
    promised = answer()
    application(place, lambda request: promised)
    place.ask(PLAIN)
    if isinstance(promised, Deferred):
        promised.callback(PAGE)
    assert len(built) == 1
    assert len(place.world.application.http_requests) == 1
    assert len(place.world.observer.decisions) == 1


def test_an_answer_to_a_connection_that_is_refused_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the gate refuses the lease, the client gets that refusal, and the application's answer is cancelled."""
    cancelled: list[object] = []
    application(place, lambda request: Deferred(cancelled.append))
    monkeypatch.setattr(place.world.gate, "arrive", lambda *arguments: Refusal(503, Reason.HANDSHAKE_CAP, 5.0))
    answer, end = place.ask(PLAIN)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert end == "closed"
    assert len(cancelled) == 1
    assert place.world.observer.refusals == [(None, 503, "handshake_cap", LOCALHOST)]


def test_an_answer_to_a_connection_that_is_dropped_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the gate's refusal is not answered, the connection is dropped."""
    application(place, lambda request: replace(PAGE, body=bytes(SEND_BYTES)))
    monkeypatch.setattr(place.world.gate, "arrive", lambda *arguments: Refusal(403, Reason.JAILED, None))
    assert place.ask(PLAIN) == (b"", "reset")


def test_an_answer_that_cannot_be_handed_over_is_cancelled(port: Acceptor, readers: Readers, world: World) -> None:
    """If the reactor cannot watch another socket, accepting pauses, and the application's answer is cancelled."""
    cancelled: list[object] = []
    world.application.on_http = lambda request: Deferred(cancelled.append)
    readers.full = True
    ours, theirs = socket.socketpair()
    with theirs, LogReader():
        theirs.send(PLAIN)
        port.receive(ours, (LOCALHOST, 0))
        assert theirs.recv(1) == b""
    assert len(cancelled) == 1
    readers.advance(PAUSE_S)


def test_an_answer_of_an_application_that_cannot_be_given(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours in handing it over ends the connection, and is logged."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    application(place, lambda request: replace(PAGE, body=bytes(SEND_BYTES)))
    monkeypatch.setattr(HttpConnection, "take_answer", fail)
    with LogReader() as log:
        assert place.ask(PLAIN) == (b"", "reset")
    assert log.failures == ["A connection could not be accepted"]


def test_a_denial_at_the_last_moment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that only `Gate.admit` refuses is answered, observed once, and cut off in time."""
    world = place.world
    denied = Refusal(429, Reason.ADDRESS_CAP, 5.0)
    monkeypatch.setattr(world.gate, "admit", lambda *arguments: denied)
    peer = place.connect()
    peer.send(request_head())
    answer, _ = peer.read()
    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"Retry-After: 5\r\n" in answer
    assert world.observer.refusals == [("server", 429, "address_cap", LOCALHOST)]
    assert world.observer.counts[Reason.ADDRESS_CAP] == 1
    assert world.application.sessions == []
    world.pass_time(LINGER_S + 1)
    place.turn()
    assert peer.read()[1] in ("closed", "reset")


def test_an_upgrade_that_fails_ends_its_connection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """There can be no HTTP answer behind a 101, so the connection is reset."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch, LogReader() as log:
        patch.setattr(Connection, "upgrade", fail)
        assert place.ask(request_head()) == (b"", "reset")
    assert log.failures == ["A connection could not be accepted"]
    assert place.ask(request_head())[0].startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("data", [request_head(), request_head(PATH, "X-A : b")])
def test_how_long_a_decision_took(place: Place, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """The time from the complete head until the decision is carried out is observed, in seconds."""
    clock = iter([10.0, 10.25, 10.5, 10.75])
    monkeypatch.setattr(socket_handler, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(http_connection, "perf_counter", lambda: next(clock))
    place.ask(data)
    assert place.world.observer.decisions == [0.25]
