"""The socket below any transport, and whether its peer has hung up."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.transports import Transport, tcp_address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from pyryrelay.runtime.socket_options import NOTSENT_BYTES, RECEIVE_BUFFER_BYTES
from pyryrelay.runtime.transports import (
    Departure,
    IStreamTransport,
    departure,
    end_writing,
    has_hung_up,
    socket_transport,
    tune,
)

PEER = tcp_address("192.0.2.1")
TCP_NOTSENT_LOWAT = 25
Pair = tuple[socket.socket, IStreamTransport]


class FakeSocket:
    """A socket that records its options."""

    def __init__(self) -> None:
        self.options: list[tuple[int, int, int]] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Record an option."""
        self.options.append((level, option, value))


class SocketTransport(Transport):
    """A transport with such a socket."""

    def __init__(self) -> None:
        super().__init__(PEER)
        self.socket = FakeSocket()

    def getHandle(self) -> FakeSocket:
        """Return the socket."""
        return self.socket


def wrapped(transport: Any, wrappers: int) -> Any:
    """Put wrappers around a transport, as TLS and the PROXY protocol do."""
    for _ in range(wrappers):
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        wrapper.transport = transport
        transport = wrapper
    return transport


@pytest.fixture
def tcp() -> Iterator[Pair]:
    """A peer's socket, and the transport of a TCP connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    transport: Any = Connection(ours, Protocol(), object())  # type: ignore[arg-type]
    yield peer, transport
    peer.close()
    ours.close()


# The socket


@pytest.mark.parametrize("wrappers", [0, 1, 2])
def test_the_transport_with_the_socket_is_below_all_wrappers(wrappers: int) -> None:
    """`socket_transport` returns the innermost transport."""
    transport: Any = SocketTransport()
    assert socket_transport(wrapped(transport, wrappers)) is transport


@pytest.mark.parametrize("wrappers", [0, 1, 2])
def test_the_socket_is_tuned_below_all_wrappers(wrappers: int) -> None:
    """`tune` bounds what the kernel buffers, also under TLS, so that a ping is not queued behind megabytes."""
    transport = SocketTransport()
    tune(wrapped(transport, wrappers))
    assert transport.socket.options == [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_BYTES),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
    ]


def test_a_tuned_socket_is_not_tuned_again() -> None:
    """A transport whose socket has inherited the options is left unchanged."""
    transport: Any = SocketTransport()
    transport.is_tuned = True
    tune(transport)
    assert transport.socket.options == []


def test_transports_without_a_socket_are_not_tuned() -> None:
    """`tune` ignores transports that have no socket."""
    transport: Any = Transport(PEER)
    tune(transport)


# Hang-ups


def until_hung_up(transport: IStreamTransport) -> None:
    """Wait until the kernel has received the peer's FIN or RST."""
    deadline_s = time.monotonic() + 20
    while not has_hung_up(transport):
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_a_peer_that_has_ended_its_side_has_hung_up(tcp: Pair) -> None:
    """The peer's FIN is seen, even if bytes before it are unread."""
    peer, transport = tcp
    peer.sendall(b"last words")
    assert not has_hung_up(transport)
    peer.shutdown(socket.SHUT_WR)
    until_hung_up(transport)


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="the system does not report it")
def test_a_peer_that_is_gone_answers_with_a_reset(tcp: Pair) -> None:
    """While the peer's kernel has more unsent bytes than ours takes, no FIN arrives; sending provokes a reset."""
    peer, transport = tcp
    peer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            peer.send(bytes(1 << 20))
    peer.close()
    assert not has_hung_up(transport)
    transport.getHandle().send(b"?")  # type: ignore[attr-defined]
    until_hung_up(transport)


def test_other_transports_have_not_hung_up() -> None:
    """A transport of another kind counts as connected."""
    transport: Any = Transport(PEER)
    assert not has_hung_up(transport)


# Departures


def after(transport: IStreamTransport, expected: Departure) -> None:
    """Wait until the kernel has learned what the peer did."""
    deadline_s = time.monotonic() + 20
    while (found := departure(transport)) is not expected:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.001)


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A peer's socket, and the transport of a connection to it."""
    if request.param == "tcp":
        yield request.getfixturevalue("tcp")
        return
    peer, ours = socket.socketpair()
    ours.setblocking(False)
    transport: Any = Connection(ours, Protocol(), object())  # type: ignore[arg-type]
    yield peer, transport
    peer.close()
    ours.close()


def test_a_peer_that_is_there_has_not_left(pair: Pair) -> None:
    """A connection counts as connected, whatever is unread."""
    peer, transport = pair
    assert departure(transport) is Departure.CONNECTED
    peer.sendall(b"data")
    assert departure(transport) is Departure.CONNECTED


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="the system does not report it")
@pytest.mark.parametrize("closes", [False, True])
def test_a_peer_that_has_ended_in_order_may_have_sent_something(pair: Pair, closes: bool) -> None:
    """Bytes before the end are unread until they are read; looking takes nothing."""
    peer, transport = pair
    peer.sendall(b"last words")
    if closes:
        peer.close()
    else:
        peer.shutdown(socket.SHUT_WR)
    after(transport, Departure.UNREAD)
    assert departure(transport) is Departure.UNREAD
    assert transport.getHandle().recv(100) == b"last words"  # type: ignore[attr-defined]
    assert departure(transport) is Departure.ENDED


def test_a_connection_that_is_reset(pair: Pair) -> None:
    """A peer that closes with bytes of ours unread has reset the connection."""
    peer, transport = pair
    transport.getHandle().send(b"data")  # type: ignore[attr-defined]
    peer.recv(1, socket.MSG_PEEK)
    peer.sendall(b"last words")
    peer.close()
    after(transport, Departure.RESET)


def test_a_socket_that_cannot_be_read_counts_as_reset(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that fails when it is looked at is not waited for."""
    peer, transport = pair

    class Broken:
        family = socket.AF_UNIX

        def recv(self, size: int, flags: int) -> bytes:
            raise ConnectionResetError

    peer.close()
    with contextlib.suppress(AssertionError):
        after(transport, Departure.ENDED)
    monkeypatch.setattr(transport, "getHandle", Broken)
    assert departure(transport) is Departure.RESET


def test_other_transports_have_not_left() -> None:
    """A transport of another kind counts as connected."""
    transport: Any = Transport(PEER)
    assert departure(transport) is Departure.CONNECTED


class Bottom:
    """A connection that records how it is ended."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Record the end."""
        self.calls.append("write side")


class Tls(ProtocolWrapper):
    """A wrapper that ends its own side, as TLS does, before that of the connection below it."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__(WrappingFactory(Factory()), Protocol())
        self.calls = calls

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Record the end, and end the connection below."""
        self.calls.append("alert")
        end_writing(self.transport)


def wrapper(transport: object) -> ProtocolWrapper:
    """Return a wrapper that sends nothing itself, such as one that has read a PROXY header."""
    made = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
    made.transport = transport  # type: ignore[assignment]
    return made


def test_a_bare_connection_ends_its_write_side() -> None:
    """A plain connection ends its write side and nothing else."""
    bottom = Bottom([])
    end_writing(bottom)
    end_writing(wrapper(bottom))
    assert bottom.calls == ["write side"] * 2


def test_tls_says_so_before_the_connection_below_it_ends() -> None:
    """RFC 8446 section 6.1: close_notify is sent before the write side of the connection below is closed."""
    bottom = Bottom([])
    tls = Tls(bottom.calls)
    tls.transport = wrapper(bottom)  # type: ignore[assignment]
    end_writing(wrapper(tls))
    assert bottom.calls == ["alert", "write side"]
