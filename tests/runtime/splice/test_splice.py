"""Two connections that are made into one, on real sockets, under a reactor that only the test turns."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.listening import own_reactor
from tests.support.transports import Transport, tcp_address
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection

from pyryrelay.runtime.splice import passing
from pyryrelay.runtime.splice.splice import HIGH_WATER_BYTES, LINGER_S, MAX_CONTROLS, MOST_HELD_BYTES, Splice
from pyryrelay.runtime.timer_wheel import SLOT_S, TimerWheel
from pyryrelay.runtime.twisted_internals import server_transport

RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER for a connection that is reset, where it can be."""


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        return client, listening.accept()[0]


class Wire:
    """A client, a splice and a server."""

    def __init__(self, reactor: Any, *, is_tcp: bool = False) -> None:
        self.reactor = reactor
        self.clock = Clock()
        self.wheel = TimerWheel(self.clock, self.clock.seconds)
        self.ended = 0
        self.splice = Splice(self.wheel, self.clock.seconds, self._end)
        pair = tcp_pair if is_tcp else socket.socketpair
        (self.client, self._near), (self._far, self.server) = pair(), pair()
        self.peer = ("127.0.0.1", 1) if is_tcp else None
        for sock in (self.client, self.server):
            sock.setblocking(False)

    def _end(self) -> None:
        self.ended += 1

    def connect(self, *, near: bool = True, far: bool = True) -> None:
        """Connect the sides to the splice."""
        if near:
            self.splice.near.adopt(self.reactor, self._near, self.peer)
        if far:
            self.splice.far.adopt(self.reactor, self._far, self.peer)

    def turn(self, turns: int = 6) -> None:
        """Run a few turns of the reactor."""
        for _ in range(turns):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)

    def read(self, sock: socket.socket, turns: int = 6) -> bytes:
        """Return what has arrived at an end."""
        received = b""
        for _ in range(turns):
            self.turn(1)
            with contextlib.suppress(BlockingIOError):
                received += sock.recv(1 << 20)
        return received

    def fill(self, sock: socket.socket) -> int:
        """Send until nobody takes any more; return how much that was."""
        sent = idle = 0
        while idle < 3:
            try:
                sent += sock.send(bytes(range(256)) * 256)
                idle = 0
            except BlockingIOError:
                idle += 1
            self.turn(2)
        return sent

    def take(self, sock: socket.socket, size: int) -> None:
        """Read exactly so much; the kernel may need a moment to notice that there is room again."""
        until_s = time.monotonic() + 60.0
        while size > 0 and time.monotonic() < until_s:
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0.01)
            with contextlib.suppress(BlockingIOError):
                size -= len(sock.recv(1 << 20))
        assert size == 0

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        for _ in range(round(seconds / SLOT_S) + 1):
            self.clock.advance(SLOT_S)
            self.turn()

    def state(self, sock: socket.socket) -> str:
        """Return whether an end is ``open``, ``closed`` or ``reset``, and discard what it can read."""
        self.turn()
        try:
            while sock.recv(1 << 20):
                pass
        except BlockingIOError:
            return "open"
        except ConnectionError:
            return "reset"
        return "closed"

    def close(self) -> None:
        """Close everything, and check that it is over."""
        self.client.close()
        self.server.close()
        self.turn()
        self.pass_time(2 * LINGER_S)
        self.splice.abort()
        self.turn()
        assert self.ended == 1
        left = [*self.reactor.getReaders(), *self.reactor.getWriters()]
        assert not [each for each in left if isinstance(each, Connection)]
        assert len(self.wheel) == 0
        for sock in (self._near, self._far):
            sock.close()


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """A reactor for the tests of this module."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture(params=["unix", "tcp"])
def wire(reactor: Any, request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Two connections, which are not connected to the splice yet."""
    wire = Wire(reactor, is_tcp=request.param == "tcp")
    yield wire
    wire.close()


@given(pieces=st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=200)), max_size=30))
def test_bytes_arrive_as_they_were_sent(pieces: list[tuple[bool, bytes]]) -> None:
    """Whatever both sides send, in whichever pieces, arrives at the other side and nowhere else."""
    with own_reactor() as reactor:
        wire = Wire(reactor)
        wire.connect()
        arrived = {True: b"", False: b""}
        for from_client, piece in pieces:
            (wire.client if from_client else wire.server).send(piece)
            arrived[True] += wire.read(wire.server, 2)
            arrived[False] += wire.read(wire.client, 2)
        for from_client in (True, False):
            assert arrived[from_client] == b"".join(piece for sender, piece in pieces if sender is from_client)
        assert wire.splice.near.passed_bytes == len(arrived[True])
        assert wire.splice.far.passed_bytes == len(arrived[False])
        wire.close()


Steps = list[tuple[str, bool, int]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "read", "turn"]),
        st.booleans(),
        st.one_of(st.integers(1, 2000), st.integers(1, 400_000)),
    ),
    max_size=25,
)


@given(steps=STEPS, is_tcp=st.booleans(), ends_first=st.booleans())
def test_streams_in_both_directions(steps: Steps, is_tcp: bool, ends_first: bool) -> None:
    """Streams of any size arrive whole, however slowly they are read, and the splice never holds more than it says."""
    source = random.Random(len(steps)).randbytes(400_000)
    with own_reactor() as reactor:
        wire = Wire(reactor, is_tcp=is_tcp)
        wire.connect()
        socks = {True: wire.client, False: wire.server}
        sent, arrived = {True: b"", False: b""}, {True: b"", False: b""}
        for action, is_client, size in steps:
            with contextlib.suppress(BlockingIOError):
                if action == "send":
                    sent[is_client] += source[: socks[is_client].send(memoryview(source)[:size])]
                elif action == "read":
                    arrived[not is_client] += socks[is_client].recv(size)
            wire.turn(1)
            assert max(wire.splice.near.unsent_bytes, wire.splice.far.unsent_bytes) <= MOST_HELD_BYTES
        socks[ends_first].shutdown(socket.SHUT_WR)
        until_s = time.monotonic() + 60.0
        while arrived != sent and time.monotonic() < until_s:
            wire.reactor.runUntilCurrent()
            wire.reactor.doIteration(0.01)
            for is_client, sock in socks.items():
                with contextlib.suppress(BlockingIOError):
                    arrived[not is_client] += sock.recv(1 << 20)
        assert arrived == sent
        assert wire.splice.near.passed_bytes == len(sent[True])
        assert wire.splice.far.passed_bytes == len(sent[False])
        wire.close()


@pytest.mark.parametrize("is_near_first", [False, True])
def test_either_side_may_be_connected_first(wire: Wire, is_near_first: bool) -> None:
    """Nothing is read from a side before there is one to pass it on to, and nothing is lost."""
    wire.connect(near=is_near_first, far=not is_near_first)
    first, second = (wire.client, wire.server) if is_near_first else (wire.server, wire.client)
    first.send(b"early")
    wire.turn()
    assert wire.splice.near.passed_bytes == wire.splice.far.passed_bytes == 0
    wire.connect(near=not is_near_first, far=is_near_first)
    second.send(b"answer")
    assert (wire.read(second), wire.read(first)) == (b"early", b"answer")


def test_a_transport_is_taken_over(wire: Wire) -> None:
    """A connection whose head was read by another protocol becomes a side, with what was read behind the head."""

    class Head(Protocol):
        def dataReceived(self, data: bytes) -> None:
            wire.splice.near.take(cast(Any, self.transport), data.partition(b"\n")[2])

    head: Any = Head()
    head.makeConnection(server_transport(wire._near, head, wire.peer, wire.reactor))
    wire.client.send(b"head\nbody")
    wire.turn()
    wire.connect(near=False)
    wire.client.send(b", more")
    assert wire.read(wire.server) == b"body, more"


def test_the_client_ends_its_side(wire: Wire) -> None:
    """The server sees the end behind everything, can still answer, and then both connections are closed."""
    wire.connect()
    wire.client.send(b"last words")
    wire.client.shutdown(socket.SHUT_WR)
    assert wire.read(wire.server) == b"last words"
    assert wire.state(wire.server) == "closed"
    wire.server.send(b"answer")
    assert wire.read(wire.client) == b"answer"
    assert wire.state(wire.client) == "open"
    wire.server.close()
    assert wire.state(wire.client) == "closed"
    assert wire.ended == 1


def test_the_server_ends_while_the_client_still_sends(wire: Wire) -> None:
    """The client gets all of the last answer, without a reset, although it sends on, and is closed after a while."""
    wire.connect()
    last = bytes(range(256)) * 64
    wire.client.send(b"more " * 1000)
    wire.turn()
    wire.server.recv(1 << 20)
    wire.server.send(last)
    wire.server.close()
    wire.turn()
    received = b""
    for _ in range(5):
        wire.client.send(b"more " * 1000)
        received += wire.read(wire.client)
    assert received == last
    assert wire.ended == 0
    wire.client.send(b"even more")
    wire.pass_time(2 * LINGER_S)
    assert wire.ended == 1


@pytest.mark.parametrize("is_client_slow", [False, True])
def test_a_peer_that_does_not_read_is_waited_for(wire: Wire, is_client_slow: bool) -> None:
    """The splice holds little, reads no more than that, and loses nothing."""
    wire.connect()
    slow, fast = (wire.client, wire.server) if is_client_slow else (wire.server, wire.client)
    side = wire.splice.near if is_client_slow else wire.splice.far
    sent = wire.fill(fast)
    assert 0 < side.unsent_bytes <= MOST_HELD_BYTES == 262144
    slow.send(b"I still send")
    assert wire.read(fast) == b"I still send"
    wire.take(slow, sent)
    assert side.unsent_bytes == 0


def test_more_is_read_at_once_from_a_side_that_streams(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk that is full makes the next one larger, up to a limit, until the other side does not keep up."""
    wire = Wire(reactor)
    for sock in (wire.client, wire._far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    wire.connect()
    sizes: list[int] = []

    def pass_on(source: Connection, sink: Connection, size: int) -> int | Exception:
        sizes.append(size)
        return passing.pass_on(source, sink, size)

    monkeypatch.setattr("pyryrelay.runtime.splice.splice.pass_on", pass_on)
    assert wire.client.send(bytes(600_000)) == 600_000
    wire.take(wire.server, 600_000)
    assert sizes == [65536, 131072, 262144, 262144]
    sent = wire.fill(wire.client)
    sizes.clear()
    wire.take(wire.server, sent)
    assert sizes[:2] == [65536, 131072]
    wire.close()


def test_a_peer_that_never_reads_is_reset_after_the_end(wire: Wire) -> None:
    """What a client does not take is given up some time after the server has gone, which is seen though it waits."""
    wire.connect()
    wire.fill(wire.server)
    wire.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wire.server.close()
    wire.turn()
    assert wire.ended == 0
    wire.pass_time(4 * LINGER_S)
    assert wire.ended == 1


def test_a_peer_that_is_slow_is_not_reset_for_it(wire: Wire) -> None:
    """While both are there, only the server knows how long a client may be slow."""
    wire.connect()
    sent = wire.fill(wire.server)
    wire.pass_time(10 * LINGER_S)
    assert wire.ended == 0
    wire.take(wire.client, sent)
    wire.pass_time(2 * LINGER_S)
    assert len(wire.wheel) == 0


def test_a_client_that_reads_slowly_after_the_end_gets_it_all(reactor: Any) -> None:
    """As long as it takes something, it is given more time."""
    wire = Wire(reactor)  # TCP would need real time to notice that there is room
    wire.connect()
    sent = wire.fill(wire.server)
    wire.server.close()
    received = 0
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            received += len(wire.client.recv(sent // 4))
        wire.pass_time(LINGER_S / 2)
    assert received == sent
    wire.close()


def test_a_reset(reactor: Any) -> None:
    """A client that resets its connection is gone for the server, too."""
    wire = Wire(reactor, is_tcp=True)
    wire.connect()
    wire.client.send(b"before")
    wire.turn()
    wire.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wire.client.close()
    assert wire.read(wire.server) == b"before"
    assert wire.state(wire.server) == "closed"
    wire.close()


def test_it_is_cut_off(wire: Wire) -> None:
    """Both connections are reset, and it is told once."""
    wire.connect()
    wire.splice.abort()
    wire.turn()
    assert wire.ended == 1
    assert wire.state(wire.client) in ("reset", "closed")
    assert wire.state(wire.server) in ("reset", "closed")
    wire.splice.abort()
    assert wire.ended == 1


def test_a_far_side_that_comes_too_late(wire: Wire) -> None:
    """If the client is given up before the far side is connected, that is reset when it comes."""
    wire.connect(far=False)
    wire.splice.abort()
    wire.turn()
    assert wire.ended == 1
    wire.connect(near=False)
    wire.turn()
    assert wire.state(wire.server) in ("reset", "closed")
    assert wire.ended == 1


def test_a_splice_that_is_given_up_before_it_begins(wire: Wire) -> None:
    """No side was connected, and none is waited for."""
    wire.splice.abort()
    assert wire.ended == 1
    assert wire.splice.is_over


def test_a_client_that_leaves_while_nothing_is_connected_behind(wire: Wire) -> None:
    """Its end is seen when the far side comes, which is then ended."""
    wire.connect(far=False)
    wire.client.send(b"before")
    wire.client.close()
    wire.turn()
    wire.connect(near=False)
    assert wire.read(wire.server) == b"before"
    assert wire.state(wire.server) == "closed"


def in_memory() -> tuple[Splice, Transport, Transport, Clock]:
    """Return a splice of two transports in memory, and its clock."""
    clock = Clock()
    splice = Splice(TimerWheel(clock, clock.seconds), clock.seconds, lambda: None)
    near, far = Transport(tcp_address("192.0.2.1")), Transport(tcp_address("192.0.2.2"))
    near.connect(splice.near)
    far.connect(splice.far)
    return splice, near, far, clock


@pytest.mark.parametrize(("data_bytes", "is_cut_off"), [(0, True), (HIGH_WATER_BYTES, False)])
def test_tls_records_without_data(data_bytes: int, is_cut_off: bool) -> None:
    """A client that sends little but empty records and key updates is cut off."""
    splice, near, far, _ = in_memory()
    splice.near.received_below(100, MAX_CONTROLS)
    splice.near.dataReceived(b"")
    assert not near.aborted
    splice.near.dataReceived(bytes(data_bytes))
    splice.near.received_below(100, 1)
    assert near.aborted is is_cut_off
    assert len(far.taken) == data_bytes


def test_tls_that_has_ended_below() -> None:
    """The goodbye of TLS ends what the server is sent."""
    splice, near, far, _ = in_memory()
    far.peer_stays = True
    splice.near.ended_below()
    splice.near.ended_below()
    assert far.writing_ended
    assert near.connected
