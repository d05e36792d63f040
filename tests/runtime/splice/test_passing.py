"""What is passed from one socket to another at once."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock

from pyryrelay.runtime.splice.passing import MOST_CHUNK_BYTES, pass_on
from pyryrelay.runtime.twisted_internals import server_transport, unsent_bytes

PATTERN = bytes(number * 7 % 251 for number in range(MOST_CHUNK_BYTES))


class Ends:
    """Two connections whose near ends are transports, and whose far ends are the peers' sockets."""

    def __init__(self, stack: ExitStack) -> None:
        self.reactor: Any = MemoryReactorClock()
        transports, peers = [], []
        for _ in range(2):
            ours, theirs = (stack.enter_context(sock) for sock in socket.socketpair())
            ours.setblocking(False)
            theirs.setblocking(False)
            protocol = Protocol()
            transport = server_transport(ours, cast(Any, protocol), None, self.reactor)
            protocol.makeConnection(cast(Any, transport))
            transports.append(transport)
            peers.append(theirs)
        self.source, self.sink = transports
        self.sender, self.receiver = peers

    def received(self) -> bytes:
        """Return what has arrived at the receiver."""
        found = b""
        with suppress(BlockingIOError):
            while data := self.receiver.recv(1 << 20):
                found += data
        return found


@contextmanager
def open_ends() -> Iterator[Ends]:
    """Open both connections."""
    with ExitStack() as stack:
        yield Ends(stack)


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; return how much that was."""
    sent = 0
    try:
        while True:
            sent += sock.send(PATTERN)
    except BlockingIOError:
        return sent


def test_a_chunk_is_passed_on() -> None:
    """It arrives without a turn of the reactor, and nothing is left."""
    with open_ends() as ends:
        ends.sender.send(b"data")
        assert pass_on(ends.source, ends.sink, MOST_CHUNK_BYTES) == 4
        assert ends.received() == b"data"
        assert unsent_bytes(ends.sink) == 0


def test_there_is_nothing_to_read() -> None:
    """Nothing happens: the socket was readable, and is not any more."""
    with open_ends() as ends:
        assert pass_on(ends.source, ends.sink, MOST_CHUNK_BYTES) == 0


def test_the_sender_has_ended() -> None:
    """It is told as Twisted tells its reactor, behind everything that was sent."""
    with open_ends() as ends:
        ends.sender.send(b"last")
        ends.sender.shutdown(socket.SHUT_WR)
        assert pass_on(ends.source, ends.sink, MOST_CHUNK_BYTES) == 4
        assert isinstance(pass_on(ends.source, ends.sink, MOST_CHUNK_BYTES), ConnectionDone)


def test_the_sender_has_reset_the_connection() -> None:
    """The connection is lost."""
    with open_ends() as ends, socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        with listening.accept()[0] as accepted:
            accepted.setblocking(False)
            source = server_transport(accepted, cast(Any, Protocol()), ("127.0.0.1", 1), MemoryReactorClock())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            assert isinstance(pass_on(source, ends.sink, MOST_CHUNK_BYTES), ConnectionLost)


def test_a_receiver_that_is_gone() -> None:
    """Its transport gets the bytes, and will find out."""
    with open_ends() as ends:
        ends.receiver.close()
        ends.sender.send(b"data")
        assert pass_on(ends.source, ends.sink, MOST_CHUNK_BYTES) == 4
        assert unsent_bytes(ends.sink) == 4


def test_a_receiver_that_takes_nothing() -> None:
    """One chunk is read, however much was sent, and waits in the transport, which starts to write."""
    with open_ends() as ends:
        ends.sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MOST_CHUNK_BYTES)
        filled = fill(ends.sink.getHandle())
        fill(ends.sender)
        assert pass_on(ends.source, ends.sink, MOST_CHUNK_BYTES) == MOST_CHUNK_BYTES
        assert unsent_bytes(ends.sink) == MOST_CHUNK_BYTES
        assert ends.reactor.getWriters() == [ends.sink]
        assert len(ends.received()) == filled


@given(data=st.data())
def test_whatever_the_receiver_takes(data: st.DataObject) -> None:
    """Chunks of any size, some taken in part, arrive in order, and what waits is never more than a chunk."""
    sizes = data.draw(st.lists(st.one_of(st.integers(1, 300), st.integers(1, 100_000)), max_size=12))
    with open_ends() as ends:
        ends.sink.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, data.draw(st.sampled_from([1, 65536])))
        sent, passed, arrived = b"", 0, b""
        for number, size in enumerate(sizes):
            piece = PATTERN[number : number + size]
            with suppress(BlockingIOError):
                sent += piece[: ends.sender.send(piece)]
            if unsent_bytes(ends.sink) == 0:
                at_most = data.draw(st.integers(1, MOST_CHUNK_BYTES))
                found = pass_on(ends.source, ends.sink, at_most)
                assert isinstance(found, int)
                assert unsent_bytes(ends.sink) <= found <= at_most
                passed += found
            if data.draw(st.booleans()):
                arrived += ends.received()
                ends.sink.doWrite()
        while passed < len(sent) or len(arrived) < passed:
            if unsent_bytes(ends.sink):
                ends.sink.doWrite()
            else:
                found = pass_on(ends.source, ends.sink, MOST_CHUNK_BYTES)
                assert isinstance(found, int)
                passed += found
            arrived += ends.received()
        assert arrived == sent
