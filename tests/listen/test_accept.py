"""The listening socket of an acceptor: accepting, pacing, failures and the end."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
from tests.support.harness import FakeSession, LogReader, World, request_head
from tests.support.listening import LOCALHOST, Place, Readers, use_up
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from pyryrelay.listen.accept import BATCH, Acceptor, AcceptReactor
from pyryrelay.listen.accept_pacing import PACED_PER_S, PACING_INTERVAL_S, QUIET_ACCEPTS, SAMPLE
from pyryrelay.listen.exhaustion import PAUSE_S, TELL_S
from pyryrelay.websocket.connection import Connection


def test_what_it_provides(place: Place) -> None:
    """An acceptor is a listening port that a reactor reads from."""
    verifyObject(IListeningPort, place.port)
    verifyObject(IReadDescriptor, place.port)
    host = place.port.getHost()
    assert (host.type, host.host, host.port) == ("TCP", LOCALHOST, place.address[1])
    assert place.port.fileno() == place.port.socket.fileno()
    assert place.port.logPrefix() == "Acceptor"


def test_the_kernel_keeps_silent_connections(place: Place) -> None:
    """A connection takes no lease before its first byte."""
    if not hasattr(socket, "TCP_DEFER_ACCEPT"):
        pytest.skip("this system has no TCP_DEFER_ACCEPT")
    peer = place.connect()
    place.turn()
    assert place.world.gate.leases.handshakes == 0
    peer.send(b"G")
    assert place.world.gate.leases.handshakes == 1


def test_a_turn_accepts_a_bounded_number(place: Place) -> None:
    """A turn accepts at most `BATCH`, and no connection is forgotten."""
    use_up(place)
    peers = [place.connect() for _ in range(4 * BATCH)]
    for peer in peers:
        peer.sock.send(request_head())
    before = 0
    most = 0
    for _ in range(20):
        place.port.doRead()
        answered = sum(peer.read()[0] != b"" for peer in peers)
        most = max(most, answered - before)
        before = answered
    assert before == len(peers)
    assert most == BATCH


def test_a_batch_is_answered_at_its_end(place: Place) -> None:
    """Nothing is sent before: a peer that leaves at an answer, and reconnects at once, must be known to have left."""
    place.port._most = BATCH
    peers = [place.connect() for _ in range(2)]
    for peer in peers:
        peer.sock.send(request_head())
    seen_by_first: list[bytes] = []

    def opened(session: FakeSession) -> None:
        session.peer.close(4404, "no server")
        seen_by_first.append(peers[0].read()[0])

    place.world.application.on_opened = opened
    place.turn()
    assert seen_by_first == [b"", b""]
    assert [peer.read()[0][:12] for peer in peers] == [b"HTTP/1.1 101"] * 2
    assert all(peer.read()[0].endswith(b"\x11\x34no server") for peer in peers)


def test_an_answer_that_cannot_be_sent_ends_its_connection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that fails at the end of a batch does not keep the others from being answered."""
    flush, failed = Connection.flush, list[Connection]()

    def fail_once(websocket: Connection) -> None:
        if not failed:
            failed.append(websocket)
            raise RuntimeError("planted")
        flush(websocket)

    monkeypatch.setattr(Connection, "flush", fail_once)
    place.port._most = BATCH
    peers = [place.connect() for _ in range(3)]
    for peer in peers:
        peer.sock.send(request_head())
    with LogReader() as log:
        place.turn()
    assert log.failures == ["A connection could not be accepted"]
    answers = [peer.read() for peer in peers]
    assert [(answer[:12], end) for answer, end in answers] == [(b"", "reset"), *[(b"HTTP/1.1 101", "open")] * 2]
    assert [codes for codes, _ in place.world.application.sessions[0].closes] == [1006]


def test_an_address_in_use(reactor: Any, place: Place, world: World) -> None:
    """It raises the error that Twisted's own ports raise."""
    with pytest.raises(CannotListenError) as caught:
        AcceptReactor(reactor).listenTCP(place.address[1], world.http_factory, interface=LOCALHOST)
    assert caught.value.socketError.errno == errno.EADDRINUSE


def test_listening_ends_once(reactor: Any, world: World) -> None:
    """Stopping closes the socket, and stopping again changes nothing."""
    port = AcceptReactor(reactor).listenTCP(0, world.http_factory, interface=LOCALHOST)
    address = (LOCALHOST, port.getHost().port)
    for _ in range(2):
        assert port.stopListening().called
    assert (port.socket, port.fileno()) == (None, -1)
    assert port not in reactor.getReaders()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    port.doRead()
    port.connectionLost(None)  # type: ignore[arg-type]


def test_the_end_of_the_reactor_closes_the_socket(reactor: Any, world: World) -> None:
    """A reactor that shuts down tells its readers, and the socket is closed."""
    port = AcceptReactor(reactor).listenTCP(0, world.http_factory, interface=LOCALHOST)
    reactor.removeReader(port)
    port.connectionLost(None)  # type: ignore[arg-type]
    assert port.socket is None


def test_which_reactors_fit(reactor: Any) -> None:
    """An acceptor runs under reactors that read from descriptors."""
    assert AcceptReactor.fit(reactor)
    assert not AcceptReactor.fit(Clock())


class Failing:
    """A listening socket that fails to accept; then no connection waits."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def accept(self) -> object:
        """Fail."""
        number = self.errors.pop(0) if self.errors else errno.EAGAIN
        raise OSError(number, os.strerror(number))

    def fileno(self) -> int:
        """Return none."""
        return -1

    def close(self) -> None:
        """Nothing to close."""


def failing(port: Acceptor, *errors: int) -> None:
    """Make the acceptor's socket fail with these errors."""
    assert port.socket is not None
    port.socket.close()
    port.socket = Failing(*errors)  # type: ignore[assignment]


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETUNREACH])
def test_errors_of_a_single_connection(port: Acceptor, readers: Readers, number: int) -> None:
    """After an error of a single connection the next one is accepted at once, and nothing is logged."""
    failing(port, number, number)
    with LogReader() as log:
        for _ in range(3):
            port.doRead()
    assert not port.socket.errors  # type: ignore[union-attr]
    assert readers.readers == [port]
    assert not log.events


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EIO])
def test_errors_that_last(port: Acceptor, readers: Readers, world: World, number: int) -> None:
    """After an error that lasts, accepting pauses instead of spinning, and one line in ten seconds tells of it."""
    failing(port, *[number] * 4)
    with LogReader() as log:
        for seconds in (0.0, 1.0, TELL_S):
            world.clock.advance(seconds)
            port.doRead()
            assert readers.readers == []
            port.doRead()
            readers.advance(PAUSE_S)
            assert readers.readers == [port]
    assert [(event["reason"], event["left_out"]) for event in log.events] == [
        (os.strerror(number), 0),
        (os.strerror(number), 1),
    ]
    assert len(port.socket.errors) == 1  # type: ignore[union-attr]


def test_listening_can_end_during_a_pause(port: Acceptor, readers: Readers) -> None:
    """No timer is left."""
    failing(port, errno.EMFILE)
    port.doRead()
    port.stopListening()
    assert not readers.getDelayedCalls()
    assert readers.readers == []


class Queue(Failing):
    """A listening socket with connections that wait, whose peers are gone."""

    def __init__(self, waiting: int = 0) -> None:
        super().__init__()
        self.waiting = waiting

    def accept(self) -> object:
        """Accept one of them."""
        if not self.waiting:
            return super().accept()
        self.waiting -= 1
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours, (LOCALHOST, 0)


@pytest.fixture
def queue(port: Acceptor) -> Queue:
    """The connections that wait."""
    failing(port)
    port.socket = queue = Queue()  # type: ignore[assignment]
    return queue


def pacing(port: Acceptor, queue: Queue, readers: Readers) -> None:
    """Let as many connect at once as begin pacing; the next poll is `PACING_INTERVAL_S` away."""
    queue.waiting = 10 * SAMPLE
    while readers.readers:
        port.doRead()
    queue.waiting = QUIET_ACCEPTS
    readers.advance(0)
    assert queue.waiting == 0


def test_a_flood_is_accepted_by_the_clock(port: Acceptor, queue: Queue, readers: Readers) -> None:
    """Connections wait for the next poll, and pacing ends with the first poll that finds none."""
    pacing(port, queue, readers)
    assert readers.readers == []
    for _ in range(3):
        queue.waiting = QUIET_ACCEPTS
        readers.advance(PACING_INTERVAL_S * 0.9)
        assert queue.waiting == QUIET_ACCEPTS
        readers.advance(PACING_INTERVAL_S * 0.11)
        assert queue.waiting == 0
        assert readers.readers == []
    readers.advance(PACING_INTERVAL_S)
    assert readers.readers == [port]
    assert not readers.getDelayedCalls()


def test_a_full_batch_is_followed_at_once(
    port: Acceptor, queue: Queue, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a full batch the next one is accepted as soon as other peers had their turn."""
    pacing(port, queue, readers)
    queue.waiting = 2 * BATCH + 1
    left: list[int] = []
    look = port.doRead

    def watched() -> None:
        look()
        left.append(queue.waiting)

    monkeypatch.setattr(port, "doRead", watched)
    readers.advance(PACING_INTERVAL_S)
    assert left == [BATCH + 1, 1, 0]


def test_slow_arrivals_are_not_paced(port: Acceptor, queue: Queue, readers: Readers, world: World) -> None:
    """Connections that arrive slowly are accepted as soon as they wait."""
    for _ in range(5 * SAMPLE):
        queue.waiting = 1
        port.doRead()
        world.clock.advance(1.1 / PACED_PER_S)
        assert readers.readers == [port]


def test_listening_can_end_while_pacing(port: Acceptor, queue: Queue, readers: Readers) -> None:
    """No timer is left."""
    pacing(port, queue, readers)
    port.stopListening()
    assert not readers.getDelayedCalls()
    assert readers.readers == []


def test_failing_while_pacing(port: Acceptor, queue: Queue, readers: Readers) -> None:
    """A failure pauses accepting as at any other time; after the pause, waiting connections are accepted."""
    pacing(port, queue, readers)
    queue.errors.append(errno.EMFILE)
    with LogReader() as log:
        readers.advance(PACING_INTERVAL_S)
    assert len(log.events) == 1
    queue.waiting = 1
    readers.advance(PAUSE_S * 0.9)
    assert readers.readers == []
    readers.advance(PAUSE_S * 0.11)
    assert readers.readers == [port]
    port.doRead()
    assert queue.waiting == 0


def test_failing_elsewhere_while_pacing(port: Acceptor, queue: Queue, readers: Readers) -> None:
    """If a connection that was accepted elsewhere cannot be taken, there is one pause, and one timer."""
    pacing(port, queue, readers)
    readers.full = True
    ours, theirs = socket.socketpair()
    with theirs, LogReader() as log:
        port.receive(ours, (LOCALHOST, 0))
        assert theirs.recv(1) == b""
    assert len(log.events) == 1
    (call,) = readers.getDelayedCalls()
    assert call.getTime() == readers.seconds() + PAUSE_S


def test_a_fault_while_pacing_ends_no_listening(
    port: Acceptor, queue: Queue, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any fault, the next connection is accepted."""
    pacing(port, queue, readers)
    monkeypatch.setattr(queue, "accept", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        readers.advance(PACING_INTERVAL_S)
    assert readers.readers == [port]


def connecting(port: Acceptor) -> socket.socket:
    """Return a socket that has connected and sent something."""
    peer = socket.create_connection((LOCALHOST, port.getHost().port))
    peer.sendall(b"x")
    return peer


def test_a_reactor_that_cannot_watch_another_socket(port: Acceptor, readers: Readers) -> None:
    """If the reactor cannot watch another descriptor, the connection ends, and others wait in the queue."""
    readers.full = True
    with connecting(port) as peer, LogReader() as log:
        peer.settimeout(60.0)
        port.doRead()
        assert peer.recv(1) == b""
    assert readers.readers == []
    assert len(log.events) == 1
    readers.advance(PAUSE_S)
