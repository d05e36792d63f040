"""Connections between two workers: their leases, their ends, and TLS."""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from tests.support.frames import close_frame, frame
from tests.support.harness import LogReader, client_of, request_head
from tests.support.listening import LOCALHOST, Peer, Place, own_reactor
from tests.support.placing import Carrying
from tests.support.tls_peers import client_context, store_of
from tests.support.two_workers import ACCEPTOR, ACCEPTORS_KEY, OWNER, OWNERS_KEY, TwoWorkers, echo, open_sockets
from twisted.internet.defer import Deferred, succeed

from pyryrelay.guard import Gate, GateConfig, Lease, LeaseLimits
from pyryrelay.http.placement import HERE, OnlyHere
from pyryrelay.http.placement import Place as Where
from pyryrelay.listen.accept import BATCH
from pyryrelay.listen.socket_handler import SocketHandler
from pyryrelay.listen.tls.accept import TlsAcceptReactor
from pyryrelay.workers.mesh.handing_over import HandedLeases, RemoteLease, WorkerPlacement
from pyryrelay.workers.mesh.mesh import Mesh
from pyryrelay.workers.mesh.messages import HandedOver, MessageError, encode_head

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
SWITCHED = b"HTTP/1.1 101 "
BUSY = b"HTTP/1.1 503 "


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """A reactor for the tests of this module."""
    with own_reactor() as reactor:
        yield reactor


class Relay:
    """Two workers, the place where the first one listens, and clients."""

    def __init__(self, reactor: Any, **world: Any) -> None:
        self.reactor = reactor
        self.workers = TwoWorkers(reactor, **world)
        self.acceptor, self.owner = self.workers.worlds
        self.owner.application.on_messages = self.acceptor.application.on_messages = echo
        self.place = self.workers.accepting(reactor)

    @property
    def held(self) -> tuple[int, int, int]:
        """How many leases the acceptor has for others, its connections, and those of the owner."""
        parts = self.workers.parts
        return (
            len(parts[ACCEPTOR].leases),
            self.acceptor.gate.leases.connections,
            self.owner.gate.leases.connections,
        )

    def upgraded(self) -> Peer:
        """Return a client whose connection was handed over."""
        peer = self.place.connect()
        peer.send(request_head())
        assert peer.read()[0].startswith(SWITCHED)
        return peer

    def fill(self) -> int:
        """Leave the owner no room; return how many messages wait for it."""
        mesh, sent = self.workers.parts[ACCEPTOR].mesh, 0
        with socket.socket() as sock:
            while mesh.send_object(OWNER, {"type": "filler", "text": "x" * 10_000}, sock):
                sent += 1
        # A head is small enough to fit in where a filler does not.
        with socket.socket() as sock:
            while mesh.send_object(OWNER, {"type": "filler"}, sock):
                sent += 1
        return sent

    def close(self) -> None:
        """Check that nothing is left."""
        self.place.close()
        self.workers.close()
        self.place.turn()


@pytest.fixture
def relay(reactor: Any) -> Iterator[Relay]:
    """A relay without connections; at the end no descriptor is left."""
    before = open_sockets()
    relay = Relay(reactor)
    yield relay
    relay.close()
    assert open_sockets() == before


def test_the_acceptor_keeps_the_lease(relay: Relay) -> None:
    """It is released when the owner has told the end, once, whichever side began."""
    first, second = relay.upgraded(), relay.upgraded()
    assert relay.held == (2, 2, 0)
    first.sock.close()
    relay.place.turn()
    assert relay.held == (1, 1, 0)
    relay.owner.application.sessions[1].peer.close(1000)
    second.send(close_frame())
    second.sock.close()
    relay.place.turn()
    assert relay.held == (0, 0, 0)
    parts = relay.workers.parts
    assert (parts[ACCEPTOR].handed_over, parts[OWNER].received) == (2, 2)


def burst(relay: Relay, count: int, data: bytes = b"") -> list[Peer]:
    """Return peers that are accepted together, each with its head and what comes behind it."""
    relay.place.port._most = BATCH
    peers = [relay.place.connect() for _ in range(count)]
    for peer in peers:
        peer.sock.send(request_head() + data)
    return peers


def messages(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many connections each message of the acceptor has, from now on."""
    mesh, found = relay.workers.parts[ACCEPTOR].mesh, list[int]()
    send = mesh.send

    def count(index: int, heads: Sequence[bytes], socks: Sequence[Any]) -> bool:
        found.append(len(heads))
        assert len(socks) == len(heads)
        return send(index, heads, socks)

    monkeypatch.setattr(mesh, "send", count)
    return found


def test_those_that_come_together_go_together(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message has all that were accepted in a turn, whatever else was accepted between them."""
    found, keys = messages(relay, monkeypatch), itertools.cycle([OWNERS_KEY, ACCEPTORS_KEY])
    relay.acceptor.application.key_of = lambda request: next(keys)
    peers = burst(relay, 16, frame(b"hello"))
    relay.place.turn()
    answers = [peer.read()[0] for peer in peers]
    assert all(answer.startswith(SWITCHED) and answer.endswith(b"\x81\x05hello") for answer in answers)
    assert found == [8]
    assert (len(relay.owner.application.sessions), len(relay.acceptor.application.sessions)) == (8, 8)
    assert relay.held == (8, 16, 0)


def test_large_ones_go_apart(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message holds what it may, and the rest goes in further ones."""
    monkeypatch.setattr("pyryrelay.workers.mesh.handing_over.MAX_HEAD_BYTES", 3000)
    found = messages(relay, monkeypatch)
    peers = burst(relay, 5, frame(b"x" * 400))
    relay.place.turn()
    assert all(peer.read()[0].startswith(SWITCHED) for peer in peers)
    assert len(found) > 1
    assert sum(found) == 5
    assert max(found) > 1


def test_many_go_apart(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message has a bounded number of connections."""
    monkeypatch.setattr("pyryrelay.workers.mesh.handing_over.MAX_HEADS", 3)
    found = messages(relay, monkeypatch)
    peers = burst(relay, 7)
    relay.place.turn()
    assert all(peer.read()[0].startswith(SWITCHED) for peer in peers)
    assert found == [3, 3, 1]


def test_a_head_that_is_too_large_to_be_sent(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, and those beside it are not."""
    encoded = itertools.count()

    def encode(head: HandedOver) -> bytes:
        if next(encoded) == 1:
            raise MessageError("planted")
        return encode_head(head)

    monkeypatch.setattr("pyryrelay.workers.mesh.handing_over.encode_head", encode)
    peers = burst(relay, 3)
    relay.place.turn()
    assert [peer.read()[0][:13] for peer in peers] == [SWITCHED, BUSY, SWITCHED]
    assert relay.held == (2, 2, 0)


def test_an_owner_without_room_for_several(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused, even if one of the refusals fails."""
    relay.workers.parts[OWNER].mesh.stop()
    sent, hand_over, calls = relay.fill(), SocketHandler._hand_over, itertools.count()

    def fail_once(self: Any, *given: Any) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")
        hand_over(self, *given)

    monkeypatch.setattr(SocketHandler, "_hand_over", fail_once)
    peers = burst(relay, 3)
    with LogReader() as log:
        relay.place.turn()
    assert [peer.read()[0][:13] for peer in peers] == [BUSY, b"", BUSY]
    assert log.failures == ["A connection could not be carried"]
    relay.place.leave()
    assert relay.held == (0, 0, 0)
    relay.workers.restarted(relay.reactor, OWNER)
    relay.place.turn(sent)


def test_what_has_no_key_or_belongs_here_stays(relay: Relay) -> None:
    """Only connections of other workers' keys are handed over."""
    for key in (None, ACCEPTORS_KEY):
        relay.acceptor.application.key_of = lambda request, key=key: key  # type: ignore[misc]
        assert relay.place.ask(request_head())[0].startswith(SWITCHED)
    assert len(relay.acceptor.application.sessions) == 2
    assert relay.held == (0, 2, 0)


def test_the_owner_ends(relay: Relay) -> None:
    """The acceptor releases its leases, and what the dead process told before its end changes nothing."""
    peer = relay.upgraded()
    relay.workers.parts[ACCEPTOR].worker_lost(OWNER)
    assert relay.held == (0, 0, 0)
    peer.sock.close()
    relay.place.turn()
    assert relay.held == (0, 0, 0)


def test_the_acceptor_ends(relay: Relay) -> None:
    """The next process with its index is not told the ends of leases that it does not have."""
    peer = relay.upgraded()
    gate = relay.acceptor.gate
    relay.workers.parts[ACCEPTOR].leases.release_all()  # as its end does
    part = relay.workers.restarted(relay.reactor, ACCEPTOR)
    lease = gate.admit(client_of(LOCALHOST), "server", relay.acceptor.clock.seconds())
    assert isinstance(lease, Lease)
    assert part.leases.take(OWNER, lease) == 1  # the same number as before
    peer.sock.close()
    relay.place.turn()
    assert len(part.leases) == 1
    part.leases.release(1)


def test_a_connection_on_its_way_to_a_process_that_ends(relay: Relay) -> None:
    """The next process with that index serves it, although its lease is gone."""
    relay.workers.parts[OWNER].mesh.stop()
    peer = relay.place.connect()
    peer.send(request_head() + frame(b"hello"))
    assert relay.held == (1, 1, 0)
    relay.workers.parts[ACCEPTOR].worker_lost(OWNER)
    assert relay.held == (0, 0, 0)
    relay.workers.restarted(relay.reactor, OWNER)
    relay.place.turn()
    answer, _ = peer.read()
    assert answer.startswith(SWITCHED)
    assert answer.endswith(b"\x81\x05hello")


def test_a_client_that_leaves_on_its_way(relay: Relay) -> None:
    """The owner finds it gone, and says so."""
    relay.workers.parts[OWNER].mesh.stop()
    peer = relay.place.connect()
    peer.send(request_head())
    peer.sock.close()
    relay.workers.restarted(relay.reactor, OWNER)
    relay.place.turn()
    assert relay.held == (0, 0, 0)


def test_an_owner_without_room(relay: Relay) -> None:
    """The client is asked to come again in a second, and costs no place."""
    relay.workers.parts[OWNER].mesh.stop()
    sent = relay.fill()
    answer, _ = relay.place.ask(request_head())
    assert answer.startswith(BUSY)
    assert b"Retry-After: 1\r\n" in answer
    assert relay.held == (0, 0, 0)
    assert relay.acceptor.observer.counts == {"owner_unavailable": 1}
    assert relay.workers.parts[ACCEPTOR].refused == 1
    relay.workers.restarted(relay.reactor, OWNER)
    relay.place.turn(sent)


@pytest.mark.parametrize("is_ready", [False, True])
def test_an_owner_that_cannot_serve(relay: Relay, is_ready: bool) -> None:
    """One that does not serve yet, or does not understand the client's address, closes the connection."""
    part = relay.workers.parts[OWNER]
    part._handler = part._handler if is_ready else None
    if is_ready:
        part._handler.client_of = lambda text: None  # type: ignore[method-assign, union-attr]
    assert relay.place.ask(request_head())[1] != "open"
    relay.place.turn()
    assert relay.held == (0, 0, 0)


def test_a_worker_that_drains(relay: Relay) -> None:
    """What is handed over to it is refused like everything else, and the lease is released."""
    relay.owner.live.drain()
    assert relay.place.ask(request_head())[0].startswith(BUSY)
    relay.place.leave()
    assert relay.held == (0, 0, 0)


def test_caps_count_what_was_handed_over(reactor: Any) -> None:
    """The caps of an address hold for the connections that others serve."""
    relay = Relay(reactor, gate=GateConfig(limits=LeaseLimits(max_connections_per_address=1)))
    first = relay.upgraded()
    assert relay.place.ask(request_head())[0].startswith(b"HTTP/1.1 429 ")
    first.sock.close()
    relay.place.turn()
    assert relay.place.ask(request_head())[0].startswith(SWITCHED)
    relay.close()


def test_the_owner_asks_about_other_hosts(relay: Relay) -> None:
    """What belongs to this worker may be served by another host, which only the owner asks."""
    carrier = Carrying()

    class Directory:
        answer: Where | Deferred[Where] = carrier

        def place(self, route: str, key: str) -> Where | Deferred[Where]:
            assert key == OWNERS_KEY
            return self.answer

    directory = Directory()
    relay.workers.parts[OWNER].ask_about_own_keys(directory)
    relay.place.ask(request_head() + b"rest")
    (attempt,) = carrier.attempts
    assert (attempt.head, attempt.rest, attempt.key) == (request_head(), b"rest", OWNERS_KEY)
    assert str(attempt.client) == LOCALHOST
    assert relay.held == (1, 1, 0)
    attempt.connection.close()  # type: ignore[union-attr]
    attempt.lease.release()
    relay.place.turn()
    assert relay.held == (0, 0, 0)
    directory.answer = succeed(HERE)
    assert relay.place.ask(request_head())[0].startswith(SWITCHED)
    relay.workers.parts[OWNER].ask_about_own_keys(OnlyHere(Directory()))
    assert relay.place.ask(request_head())[0].startswith(BUSY)
    relay.place.leave()
    assert relay.held == (0, 0, 0)


def test_the_placement_of_workers() -> None:
    """The hash of a key says which worker serves it."""
    carrier = Carrying()
    placement = WorkerPlacement(ACCEPTOR, {OWNER: carrier})
    assert placement.place("server", OWNERS_KEY) is carrier
    assert placement.place("server", ACCEPTORS_KEY) is HERE


def test_leases_are_released_once() -> None:
    """By number, by worker, or all; and again never."""
    gate = Gate()
    leases = HandedLeases()
    for owner in (1, 1, 2, 3):
        lease = gate.admit(client_of(LOCALHOST), "server", 0.0)
        assert isinstance(lease, Lease)
        leases.take(owner, lease)
    leases.release(1)
    leases.release(1)
    leases.release(99)
    assert (len(leases), gate.leases.connections) == (3, 3)
    leases.release_all(1)
    assert (len(leases), gate.leases.connections) == (2, 2)
    leases.release_all()
    assert (len(leases), gate.leases.connections) == (0, 0)


def test_the_end_is_told_once() -> None:
    """However often a lease of another worker is released."""
    told: list[tuple[int, int, int]] = []

    class Telling:
        def tell_ended(self, index: int, boot: int, number: int) -> None:
            told.append((index, boot, number))

    lease = RemoteLease(cast(Mesh, Telling()), 1, 100, 7)
    lease.release()
    lease.release()
    assert told == [(1, 100, 7)]


class TlsClient:
    """A client that speaks TLS, by hand."""

    def __init__(self, place: Place) -> None:
        self.peer = place.connect()
        self._place = place
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client_context().wrap_bio(self._incoming, self._outgoing)
        self._is_shaken = False
        self._unsent = b""
        self.received = b""

    def send(self, data: bytes = b"", rounds: int = 6) -> None:
        """Send data, as soon as the handshake is done, and receive what comes."""
        self._unsent += data
        for _ in range(rounds):
            try:
                if not self._is_shaken:
                    self._tls.do_handshake()
                    self._is_shaken = True
                if self._unsent:
                    self._tls.write(self._unsent)
                    self._unsent = b""
                self.received += self._tls.read(1 << 20)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                pass
            self.peer.send(self._outgoing.read())
            self._place.world.clock.advance(0)
            self.peer.received = b""
            self.peer.read()
            self._incoming.write(self.peer.received)


@pytest.fixture
def tls(reactor: Any) -> Iterator[Relay]:
    """A relay whose acceptor speaks TLS."""
    before = open_sockets()
    relay = Relay(reactor)
    relay.place.port.stopListening()
    factory = relay.acceptor.http_factory
    relay.place.port = TlsAcceptReactor(reactor, store_of()).listenTCP(0, factory, interface=LOCALHOST)
    relay.place.address = (LOCALHOST, relay.place.port.getHost().port)
    yield relay
    relay.close()
    assert open_sockets() == before


def test_tls_stays_where_it_is(tls: Relay) -> None:
    """The bytes are passed on, in both directions; the owner serves the connection, and ends it."""
    client = TlsClient(tls.place)
    client.send(request_head() + frame(b"first"))
    client.send(frame(b"x" * 50_000, 2))
    assert client.received.startswith(SWITCHED)
    assert b"\x81\x05first" in client.received
    assert client.received.endswith(b"x" * 50_000)
    assert [str(session.request.client) for session in tls.owner.application.sessions] == [LOCALHOST]
    assert len(tls.workers.parts[ACCEPTOR].splices) == 1
    assert tls.held == (1, 1, 0)
    tls.owner.application.sessions[0].peer.close(1000)
    client.send(close_frame())
    assert client.received.endswith(b"\x88\x02\x03\xe8")
    client.peer.sock.close()
    for world in (tls.owner, tls.acceptor):
        world.pass_time(3.0)
        tls.place.turn()
    assert tls.held == (0, 0, 0)


def test_a_tls_client_that_leaves(tls: Relay) -> None:
    """The owner sees the end."""
    client = TlsClient(tls.place)
    client.send(request_head())
    client.peer.sock.close()
    tls.place.turn(12)
    assert [session.closes for session in tls.owner.application.sessions] == [[(1006, "")]]
    assert tls.held == (0, 0, 0)
    assert not tls.workers.parts[ACCEPTOR].splices


def test_the_acceptor_of_tls_stops(tls: Relay) -> None:
    """The connections whose bytes it passes on end with it."""
    client = TlsClient(tls.place)
    client.send(request_head())
    tls.workers.parts[ACCEPTOR].stop()
    tls.place.turn()
    assert client.peer.read()[1] != "open"
    assert [session.closes for session in tls.owner.application.sessions] == [[(1006, "")]]
    assert tls.held == (0, 0, 0)
    tls.workers.parts[ACCEPTOR].start()
    tls.place.turn()


def test_an_owner_without_room_for_tls(tls: Relay) -> None:
    """The client is asked to come again, through TLS."""
    tls.workers.parts[OWNER].mesh.stop()
    sent = tls.fill()
    client = TlsClient(tls.place)
    client.send(request_head())
    assert client.received.startswith(BUSY)
    assert tls.held == (0, 0, 0)
    tls.workers.restarted(tls.reactor, OWNER)
    tls.place.turn(sent)


def test_no_descriptor_left_for_tls(tls: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, if there is no pair of sockets to be had."""

    def full() -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pyryrelay.workers.mesh.handing_over.socket.socketpair", full)
    client = TlsClient(tls.place)
    client.send(request_head())
    assert client.received.startswith(BUSY)
