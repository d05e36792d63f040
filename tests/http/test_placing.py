"""Upgrades whose place is elsewhere, or not known yet: with an acceptor, and with a plain port of Twisted's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from tests.support.asking import HEALTH, SMALL
from tests.support.frames import frame
from tests.support.harness import ALICE, LogReader, World, request_head
from tests.support.listening import LOCALHOST, Peer, Place, own_reactor, use_up
from tests.support.placing import KEY, Answering, Carrying, placed_by
from tests.support.two_workers import echo, open_sockets
from twisted.internet.defer import Deferred, succeed

from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.http.placement import HERE, UNAVAILABLE, OnlyHere
from pyryrelay.http.placement import Place as Where
from pyryrelay.http.placing import EARLY_BYTES
from pyryrelay.protocol import HttpRefusal, Page
from pyryrelay.runtime.splice.splice import Splice

SWITCHED = b"HTTP/1.1 101 "
BUSY = b"HTTP/1.1 503 "
FORBIDDEN = HttpRefusal(403, "forbidden", (("X-Why", "because"),))


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """A reactor for the tests of this module."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture(params=["acceptor", "port"])
def places(reactor: Any, request: pytest.FixtureRequest) -> Iterator[list[Place]]:
    """An empty list, for the place that `at` makes."""
    made: list[Any] = [reactor, request.param == "acceptor"]
    before = open_sockets()
    yield made
    for place in made[2:]:
        place.close()
        place.turn()
    assert open_sockets() == before


def at(made: list[Any], answer: Where | Deferred[Where], **world: Any) -> tuple[Place, Answering]:
    """Return a place whose placement has that answer."""
    reactor, has_acceptor = made[:2]
    here = World(**(world or {"gate": SMALL}))
    here.application.on_messages = echo
    placement = placed_by(here, answer)
    place = Place(reactor, here, has_acceptor=has_acceptor)
    made.append(place)
    return place, placement


def leases(place: Place) -> tuple[int, int]:
    """Return how many handshakes and connections there are."""
    held = place.world.gate.leases
    return held.handshakes, held.connections


def test_here(places: list[Any]) -> None:
    """The placement is asked once about an upgrade that nothing else forbids, and the upgrade is served."""
    place, placement = at(places, HERE)
    answer, _ = place.ask(request_head() + frame(b"hello"))
    assert answer.startswith(SWITCHED)
    assert answer.endswith(b"\x81\x05hello")
    assert placement.asked == [("server", KEY)]
    use_up(place)
    for data in (HEALTH, request_head("/nowhere"), request_head(method="POST"), request_head()):
        place.ask(data)
    assert len(placement.asked) == 1


def test_an_application_without_a_key(places: list[Any]) -> None:
    """Nobody is asked where any process will do."""
    place, placement = at(places, FORBIDDEN)
    place.world.application.key_of = lambda request: None
    assert place.ask(request_head())[0].startswith(SWITCHED)
    assert placement.asked == []


@pytest.mark.parametrize("is_later", [False, True])
@pytest.mark.parametrize(
    ("answer", "status", "spent"),
    [
        (FORBIDDEN, b"HTTP/1.1 403 ", 1),
        (UNAVAILABLE, BUSY, 0),
        (Page(200, (("X-Accel-Redirect", "/there"),)), b"HTTP/1.1 200 ", 1),
    ],
)
def test_an_answer(places: list[Any], answer: Where, status: bytes, spent: int, is_later: bool) -> None:
    """The client gets it, for a token, unless nobody is to blame; the connection is closed."""
    place, _ = at(places, succeed(answer) if is_later else answer)
    found, _ = place.ask(request_head() + b"more")
    assert found.startswith(status)
    if isinstance(answer, Page | HttpRefusal):
        assert all(f"{name}: {value}\r\n".encode() in found for name, value in answer.fields)
    assert place.world.tokens_spent(LOCALHOST) == spent
    assert not place.world.application.sessions


def test_it_waits_for_its_place(places: list[Any]) -> None:
    """Nothing is spent meanwhile, and what the peer sends is served when the place is known."""
    where: Deferred[Where] = Deferred()
    place, _ = at(places, where)
    peer = place.connect()
    peer.send(request_head() + frame(b"a"))
    peer.send(frame(b"b")[:3])
    peer.send(frame(b"b")[3:])
    assert peer.read() == (b"", "open")
    assert leases(place) == (1, 0)
    where.callback(HERE)
    place.turn()
    answer, end = peer.read()
    assert answer.startswith(SWITCHED)
    assert answer.endswith(b"\x81\x01a\x81\x01b")
    assert end == "open"
    assert leases(place) == (0, 1)
    assert place.world.tokens_spent(LOCALHOST) == 1


def test_a_flood_while_it_waits(places: list[Any]) -> None:
    """Only so much is kept, and nothing is lost."""
    where: Deferred[Where] = Deferred()
    place, _ = at(places, where)
    peer = place.connect()
    peer.send(request_head())
    message = frame(bytes(1000), 2)
    stream, sent = message * 3000, 0
    for _ in range(200):
        try:
            sent += peer.sock.send(stream[sent:])
        except BlockingIOError:
            break
        place.turn(2)
    (waiting,) = place.world.context.waiting
    assert len(waiting._early) <= 2 * EARLY_BYTES  # type: ignore[attr-defined]
    received: list[Any] = []
    place.world.application.on_messages = lambda session, batch: received.extend(batch)
    where.callback(HERE)
    for _ in range(2000):
        place.turn(1)
        place.world.clock.advance(0)
        try:
            sent += peer.sock.send(stream[sent:])
        except BlockingIOError:
            continue
        if len(received) == 3000:
            break
    assert len(received) == 3000


def test_a_peer_that_leaves_while_it_waits(places: list[Any]) -> None:
    """The question is cancelled, and nothing is spent or held."""
    cancelled: list[Deferred[Where]] = []
    place, _ = at(places, Deferred(cancelled.append))
    peer = place.connect()
    peer.send(request_head())
    peer.sock.close()
    place.turn()
    assert len(cancelled) == 1
    assert leases(place) == (0, 0)
    assert place.world.tokens_spent(LOCALHOST) == 0
    assert place.world.observer.refusals == []


def test_a_place_that_is_not_known_in_time(places: list[Any]) -> None:
    """The time for the head runs on; then the client is asked to come again, for nothing."""
    cancelled: list[Deferred[Where]] = []
    where: Deferred[Where] = Deferred(cancelled.append)
    place, _ = at(places, where)
    peer = place.connect()
    peer.send(request_head())
    place.world.pass_time(HEAD_TIMEOUT_S + 1.0)
    place.turn()
    answer, _ = peer.read()
    assert answer.startswith(BUSY)
    assert b"Retry-After: 1\r\n" in answer
    assert len(cancelled) == 1
    assert place.world.tokens_spent(LOCALHOST) == 0


@pytest.mark.parametrize("is_later", [False, True])
def test_a_placement_that_fails(places: list[Any], is_later: bool) -> None:
    """The client gets 500, and the failure is logged."""
    where: Deferred[Where] = Deferred()
    place, placement = at(places, where)
    with LogReader() as log:
        if is_later:
            peer = place.connect()
            peer.send(request_head())
            where.errback(RuntimeError("planted"))
            place.turn()
            answer = peer.read()[0]
        else:
            placement.error = RuntimeError("planted")
            answer = place.ask(request_head())[0]
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert log.failures == ["A request could not be answered"]


def test_the_relay_drains_while_it_waits(places: list[Any]) -> None:
    """An upgrade whose place is known then is refused as any other, and those that still wait are ended."""
    first: Deferred[Where] = Deferred()
    place, placement = at(places, first)
    peer = place.connect()
    peer.send(request_head())
    cancelled: list[Deferred[Where]] = []
    placement.answer = Deferred(cancelled.append)
    other = place.connect()
    other.send(request_head())
    place.world.live.drain()
    first.callback(HERE)
    place.turn()
    assert peer.read()[0].startswith(BUSY)
    assert place.world.observer.counts == {"draining": 1}
    place.world.context.waiting.shut_down()
    place.turn()
    assert len(cancelled) == 1
    assert other.read()[1] != "open"


def test_the_last_token_is_spent_meanwhile(places: list[Any]) -> None:
    """Who waits has no claim to a token."""
    where: Deferred[Where] = Deferred()
    place, _ = at(places, where)
    peer = place.connect()
    peer.send(request_head())
    use_up(place)
    where.callback(HERE)
    place.turn()
    assert peer.read()[0].startswith(b"HTTP/1.1 429 ")
    assert place.world.observer.counts == {"rate_limit": 1}


@pytest.mark.parametrize("is_later", [False, True])
def test_a_carrier(places: list[Any], is_later: bool) -> None:
    """It gets the bare socket, the bytes and the lease; the token is spent here, and no transport is left."""
    carrier = Carrying()
    where: Deferred[Where] = Deferred()
    place, _ = at(places, where if is_later else carrier)
    peer = place.connect()
    peer.send(request_head() + frame(b"a"))
    if is_later:
        peer.send(frame(b"b"))
        where.callback(carrier)
    (attempt,) = carrier.attempts
    assert (attempt.head, attempt.route, attempt.key) == (request_head(), "server", KEY)
    assert attempt.rest == (frame(b"a") + frame(b"b") if is_later else frame(b"a"))
    assert str(attempt.client) == LOCALHOST
    assert attempt.address == peer.sock.getsockname()
    assert attempt.websocket_key == attempt.request.header("sec-websocket-key")
    assert isinstance(attempt.connection, socket.SocketType)
    assert leases(place) == (0, 1)
    assert not place.world.context.waiting
    peer.sock.send(b"unread")
    place.turn()
    assert attempt.connection.recv(99) == b"unread"
    attempt.connection.send(b"answer")
    assert peer.read() == (b"answer", "open")
    attempt.connection.close()
    assert peer.read() == (b"answer", "closed")
    attempt.lease.release()
    attempt.lease.release()
    assert leases(place) == (0, 0)
    assert place.world.tokens_spent(LOCALHOST) == 1
    assert place.world.observer.refusals == []


@pytest.mark.parametrize("is_later", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_carrier_that_cannot(places: list[Any], is_later: bool, fails: bool) -> None:
    """The client is answered in order, even if it sends on, and the lease is released."""
    carrier = Carrying()
    carrier.refusal = UNAVAILABLE
    carrier.error = RuntimeError("planted") if fails else None
    where: Deferred[Where] = Deferred()
    place, _ = at(places, where if is_later else carrier)
    with LogReader() as log:
        peer = place.connect()
        peer.send(request_head() + b"more")
        if is_later:
            where.callback(carrier)
            place.turn()
    peer.send(b"and more")
    answer, _ = peer.read()
    assert answer.startswith(BUSY)
    assert leases(place) == (1, 0)
    assert place.world.observer.counts == {"owner_unavailable": 1}
    assert log.failures == (["A connection could not be carried"] if fails else [])


def test_a_carrier_after_the_last_token(places: list[Any]) -> None:
    """The gate has the last word: what it refuses is not carried."""
    carrier = Carrying()
    where: Deferred[Where] = Deferred()
    place, _ = at(places, where)
    peer = place.connect()
    peer.send(request_head())
    use_up(place)
    where.callback(carrier)
    place.turn()
    assert peer.read()[0].startswith(b"HTTP/1.1 429 ")
    assert carrier.attempts == []


def test_no_descriptor_is_left_to_carry(places: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is asked to come again."""
    carrier = Carrying()
    where: Deferred[Where] = Deferred()
    place, _ = at(places, where)
    peer = place.connect()
    peer.send(request_head())

    def full(transport: Any) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pyryrelay.http.placing.detach_socket", full)
    where.callback(carrier)
    place.turn()
    assert peer.read()[0].startswith(BUSY)
    assert leases(place) == (1, 0)


def test_a_transport_is_carried_where_there_is_no_bare_socket() -> None:
    """A layer in between stays in this process: the carrier gets the transport, which is not read from meanwhile."""
    carrier = Carrying()
    world = World()
    placed_by(world, carrier)
    connection = world.connect()
    connection.feed(request_head() + frame(b"a"))
    (attempt,) = carrier.attempts
    carried = cast(Any, attempt.connection)
    assert id(carried) == id(connection.transport)
    assert not connection.is_read()
    assert not world.context.waiting
    far: Any = world.connect().transport
    splice = Splice(world.wheel, world.clock.seconds, attempt.lease.release)
    splice.near.take(carried, attempt.rest)
    far.connect(splice.far)
    assert bytes(far.taken).endswith(frame(b"a"))
    assert connection.is_read()


def test_a_transport_that_is_given_back() -> None:
    """It is answered where it is."""
    carrier = Carrying()
    world = World(gate=SMALL)
    placed_by(world, carrier)
    connection = world.connect()
    connection.feed(request_head())
    carrier.attempts[0].refuse(UNAVAILABLE)
    assert connection.take().startswith(BUSY)
    assert world.gate.leases.connections == 0
    connection.settle()
    connection.transport.lose()
    assert world.tokens_spent(ALICE) == 1
    world.assert_empty()


@pytest.mark.parametrize(
    ("place", "expected"), [(HERE, HERE), (FORBIDDEN, FORBIDDEN), (Page(200), UNAVAILABLE), (Carrying(), UNAVAILABLE)]
)
def test_one_hop_only(place: Where, expected: Where) -> None:
    """What was carried once is served or refused."""
    assert OnlyHere(Answering(place)).place("server", KEY) == expected
    later: list[Where] = []
    answer = OnlyHere(Answering(succeed(place))).place("server", KEY)
    assert isinstance(answer, Deferred)
    answer.addCallback(later.append)
    assert later == [expected]


def test_a_peer_is_read_again(places: list[Any]) -> None:
    """A head that comes in pieces is placed when it is whole."""
    place, placement = at(places, HERE)
    peer: Peer = place.connect()
    for at_byte in range(0, len(request_head()), 20):
        peer.send(request_head()[at_byte : at_byte + 20])
    assert peer.read()[0].startswith(SWITCHED)
    assert len(placement.asked) == 1
