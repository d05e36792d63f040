"""Connections that another process has admitted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.frames import frame
from tests.support.harness import ALICE, LogReader, World, client_of, request_head
from tests.support.listening import LOCALHOST, TURNS, own_reactor
from tests.support.placing import Answering, Carrying
from tests.support.two_workers import echo, open_sockets
from twisted.internet.defer import Deferred

from pyryrelay.guard import GateConfig, LeaseLimits
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.http.message import parse_head
from pyryrelay.http.placement import HERE, UNAVAILABLE, Placement
from pyryrelay.http.placement import Place as Where
from pyryrelay.listen.arrivals import Arrival, ArrivalHandler
from pyryrelay.protocol import HttpRefusal, Request

SWITCHED = b"HTTP/1.1 101 "
NO_ROOM = GateConfig(limits=LeaseLimits(max_connections=1, max_handshakes=1))


class CountedLease:
    """A lease of another process."""

    def __init__(self) -> None:
        self.releases = 0

    def release(self) -> None:
        """Count the calls."""
        self.releases += 1


class Receiving:
    """A process that receives connections."""

    def __init__(self, reactor: Any, **world: Any) -> None:
        self.reactor = reactor
        self.world = World(**world)
        self.world.application.on_messages = echo
        self.world.application.key_of = lambda request: "key"
        self.lease = CountedLease()
        self.client: socket.socket
        self.sock: Any

    def turn(self) -> None:
        """Run a few turns of the reactor."""
        for _ in range(TURNS):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)

    def receive(
        self, head: bytes, rest: bytes = b"", placement: Placement | None = None, *, is_unix: bool = False
    ) -> None:
        """Receive a connection."""
        if is_unix:
            self.client, self.sock = socket.socketpair()
        else:
            with socket.create_server((LOCALHOST, 0)) as listening:
                self.client = socket.create_connection(listening.getsockname())
                self.sock = listening.accept()[0]
        self.client.setblocking(False)
        handler = ArrivalHandler(self.reactor, self.world.http_factory, placement)
        address = None if is_unix else self.sock.getpeername()
        found = parse_head(head)
        request = Request(found.path, found.fields, client_of(ALICE))
        key = found.single("sec-websocket-key") or ""
        handler.receive(Arrival(self.sock, address, request, key, head, rest, self.lease))
        self.turn()

    def answer(self) -> bytes:
        """Return what the client has received; nothing but an end is an empty answer."""
        self.turn()
        try:
            return self.client.recv(65536)
        except (BlockingIOError, ConnectionError):
            return b""

    def leave(self) -> None:
        """Close the client's side, and check that the lease was released once."""
        self.client.close()
        self.turn()
        self.sock.close()
        assert self.lease.releases == 1
        self.world.assert_empty()


def full(self: Any, arrival: Any, protocol: Any) -> Any:
    """Be a reactor that can watch no other socket."""
    raise OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """A reactor for the tests of this module."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture
def receiving(reactor: Any) -> Iterator[Receiving]:
    """A process whose own gate has no room at all."""
    before = open_sockets()
    receiving = Receiving(reactor, gate=NO_ROOM)
    outcome = receiving.world.gate.admit(client_of(LOCALHOST), "server", 0.0)
    handshake = receiving.world.gate.arrive(client_of(LOCALHOST), 0.0)
    yield receiving
    for lease in (outcome, handshake):
        lease.release()  # type: ignore[union-attr]
    receiving.leave()
    assert open_sockets() == before


@pytest.mark.parametrize("is_unix", [False, True])
@pytest.mark.parametrize("placement", [None, Answering(HERE)])
def test_it_is_served(receiving: Receiving, is_unix: bool, placement: Placement | None) -> None:
    """The gate is not asked, nothing is spent, and the client is the one that was named."""
    receiving.receive(request_head(), frame(b"hello"), placement, is_unix=is_unix)
    answer = receiving.answer()
    assert answer.startswith(SWITCHED)
    assert answer.endswith(b"\x81\x05hello")
    (session,) = receiving.world.application.sessions
    assert str(session.request.client) == ALICE
    assert receiving.lease.releases == 0
    assert receiving.world.observer.attempts == []
    assert receiving.world.tokens_spent(ALICE) == 0


def test_a_path_that_is_not_known_here(receiving: Receiving) -> None:
    """This process may have read another configuration; the refusal costs no token."""
    receiving.receive(request_head("/nowhere"), b"more")
    assert receiving.answer().startswith(b"HTTP/1.1 404 ")
    assert [found for _, _, found, _ in receiving.world.observer.refusals] == ["unknown_path"]
    assert receiving.world.tokens_spent(ALICE) == 0


def test_it_is_not_checked_again(receiving: Receiving) -> None:
    """The application was asked about its header fields where the connection was accepted."""
    receiving.world.application.gate = lambda request: HttpRefusal(403, "bad")
    receiving.receive(request_head())
    assert receiving.answer().startswith(SWITCHED)


def test_several_are_answered_together(receiving: Receiving) -> None:
    """Those that come in one turn are flushed at its end."""
    handler = ArrivalHandler(receiving.reactor, receiving.world.http_factory)
    handler.begin_batch()
    receiving.receive(request_head())
    assert receiving.answer() == b""
    handler.end_batch()
    assert receiving.answer().startswith(SWITCHED)


def test_it_is_refused_while_draining(receiving: Receiving) -> None:
    """As all upgrades are."""
    receiving.world.live.drain()
    receiving.receive(request_head())
    assert receiving.answer().startswith(b"HTTP/1.1 503 ")


def test_it_belongs_elsewhere(receiving: Receiving) -> None:
    """Then it is refused, for no token."""
    receiving.receive(request_head(), placement=Answering(UNAVAILABLE))
    assert receiving.answer().startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("is_known", [False, True])
def test_it_waits_for_its_place(receiving: Receiving, is_known: bool) -> None:
    """The time for the head holds here, too."""
    where: Deferred[Where] = Deferred()
    receiving.receive(request_head(), placement=Answering(where))
    assert receiving.answer() == b""
    if is_known:
        where.callback(HERE)
    else:
        receiving.world.pass_time(HEAD_TIMEOUT_S + 1.0)
    assert receiving.answer().startswith(SWITCHED if is_known else b"HTTP/1.1 503 ")


def test_it_goes_on_to_another_host(receiving: Receiving) -> None:
    """The carrier gets the same lease."""
    carrier = Carrying()
    receiving.receive(request_head(), b"rest", Answering(carrier))
    (attempt,) = carrier.attempts
    assert attempt.lease is receiving.lease
    assert (attempt.head, attempt.rest) == (request_head(), b"rest")
    assert (attempt.connection, attempt.address) == (receiving.sock, receiving.client.getsockname())
    assert receiving.lease.releases == 0
    attempt.connection.close()  # type: ignore[union-attr]
    attempt.lease.release()


@pytest.mark.parametrize("is_full", [False, True])
def test_another_host_that_cannot_be_reached(
    receiving: Receiving, is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is answered, even if it sends on, or closed if the reactor takes no more sockets."""
    carrier = Carrying()
    receiving.receive(request_head(), b"rest", Answering(carrier))
    if is_full:
        monkeypatch.setattr(ArrivalHandler, "_transport", full)
    (attempt,) = carrier.attempts
    attempt.refuse(UNAVAILABLE)
    assert receiving.answer().startswith(b"" if is_full else b"HTTP/1.1 503 ")
    assert receiving.world.observer.counts == {"owner_unavailable": 1}


def test_a_placement_that_fails(receiving: Receiving) -> None:
    """The client gets 500."""
    placement = Answering(HERE)
    placement.error = RuntimeError("planted")
    with LogReader() as log:
        receiving.receive(request_head(), placement=placement)
    assert receiving.answer().startswith(b"HTTP/1.1 500 ")
    assert log.failures == ["A request could not be answered"]


def test_an_application_that_fails(receiving: Receiving) -> None:
    """The connection ends as one does that was accepted here."""

    def fail(session: Any) -> None:
        raise RuntimeError("planted")

    receiving.world.application.on_opened = fail
    with LogReader() as log:
        receiving.receive(request_head())
    assert log.failures == ["An application failed"]


@pytest.mark.parametrize("head", [request_head(), request_head("/nowhere")])
def test_a_reactor_that_takes_no_more(receiving: Receiving, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is closed, and the lease released."""
    monkeypatch.setattr(ArrivalHandler, "_transport", full)
    cancelled: list[Deferred[Where]] = []
    receiving.receive(head, placement=Answering(Deferred(cancelled.append)))
    assert receiving.answer() == b""
    assert len(cancelled) == (head == request_head())


def test_a_client_that_is_not_understood(receiving: Receiving) -> None:
    """The text of an address is read as everywhere."""
    handler = ArrivalHandler(receiving.reactor, receiving.world.http_factory)
    assert handler.client_of("nonsense") is None
    assert str(handler.client_of(ALICE)) == ALICE
    receiving.receive(request_head())
