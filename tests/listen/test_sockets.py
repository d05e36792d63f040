"""Listening sockets, one read and one response, on real sockets."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from pyryrelay.listen.kernel.bpf import filter_program
from pyryrelay.listen.sockets import (
    RECEIVE_BYTES,
    Listening,
    attach_program,
    bound_socket,
    finish,
    listening_socket,
    read,
)

SO_ATTACH_FILTER = 26
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a TCP connection."""
    with listening_socket(0, "127.0.0.1", 1, 5.0) as listening:
        listening.setblocking(True)
        with socket.create_connection(listening.getsockname()) as peer:
            peer.settimeout(20)
            peer.sendall(b"x")  # Linux accepts a connection when its first byte has arrived
            accepted, _ = listening.accept()
            with socket.socket(fileno=accepted.detach()) as ours:
                assert ours.recv(1) == b"x"
                ours.setblocking(False)
                yield ours, peer


# Listening


@pytest.mark.parametrize(("interface", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_listening_socket(interface: str, family: int) -> None:
    """It does not block, is not inherited by child processes, reuses its address, and sends without delay."""
    with listening_socket(0, interface, 1, 5.0) as listening:
        assert isinstance(listening, Listening)
        assert (listening.family, listening.getsockname()[0]) == (family, interface)
        assert not listening.getblocking()
        assert not os.get_inheritable(listening.fileno())
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="the system has no TCP_DEFER_ACCEPT")
def test_silent_connections_are_left_to_the_kernel() -> None:
    """A connection on which nothing has arrived is not accepted yet."""
    with listening_socket(0, "127.0.0.1", 1, 5.0) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 5
        with socket.create_connection(listening.getsockname()), pytest.raises(BlockingIOError):
            listening.accept()


def test_an_accepted_connection() -> None:
    """`Listening.accept` returns a bare socket and the peer's address."""
    with listening_socket(0, "127.0.0.1", 1, 5.0) as listening:
        listening.settimeout(20)
        with socket.create_connection(listening.getsockname()) as peer:
            peer.sendall(b"x")
            accepted, address = listening.accept()
            assert type(accepted) is socket.SocketType
            assert (accepted.family, address) == (socket.AF_INET, peer.getsockname())
            accepted.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files cannot be counted here")
def test_a_socket_that_cannot_be_bound_is_closed() -> None:
    """If listening fails, no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="assign requested address"):
        listening_socket(0, "192.0.2.1", 1, 5.0)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has socket filters")
def test_sockets_of_one_port() -> None:
    """Sockets of one user may share a port if all of them say so before they are bound."""
    with bound_socket(0, "127.0.0.1", 1.0, shares_port=True) as one:
        port = one.getsockname()[1]
        bound_socket(port, "127.0.0.1", 1.0, shares_port=True).close()
        one.listen()
        with pytest.raises(OSError, match="in use"):
            bound_socket(port, "127.0.0.1", 1.0)


def test_a_program_is_attached() -> None:
    """A classic BPF program is accepted by the kernel, or refused for a missing privilege."""
    with listening_socket(0, "127.0.0.1", 1, 5.0) as listening:
        try:
            attach_program(listening, SO_ATTACH_FILTER, filter_program(()))
        except PermissionError:
            pytest.skip("the process may not filter sockets")


# Reading and responding


def test_reading(pair: Pair) -> None:
    """A read returns the bytes that are there, None if there are none yet, and no bytes at the end."""
    ours, peer = pair
    assert read(ours) is None
    peer.sendall(b"x")
    ours.setblocking(True)
    assert read(ours) == b"x"
    ours.setblocking(False)
    peer.shutdown(socket.SHUT_WR)
    ours.settimeout(20)
    assert ours.recv(1) == b""
    assert read(ours) == b""


def test_a_read_is_bounded() -> None:
    """A read returns at most `RECEIVE_BYTES`."""
    ours, peer = socket.socketpair()
    with ours, peer:
        peer.sendall(b"x" * (RECEIVE_BYTES + 1))
        assert read(ours) == b"x" * RECEIVE_BYTES
        assert read(ours) == b"x"


def test_reading_from_a_closed_socket() -> None:
    """An error is reported as the end."""
    ours, peer = socket.socketpair()
    ours.close()
    peer.close()
    assert read(ours) == b""


def test_a_response_is_sent_before_the_end(pair: Pair) -> None:
    """The peer receives the whole response, and then the end of the connection."""
    ours, peer = pair
    finish(ours, b"response")
    assert ours.fileno() == -1
    assert (peer.recv(100), peer.recv(100)) == (b"response", b"")


def test_without_a_response_the_connection_is_reset(pair: Pair) -> None:
    """A connection that gets no response is reset."""
    ours, peer = pair
    finish(ours, b"")
    with pytest.raises(ConnectionResetError):
        peer.recv(100)


@pytest.mark.parametrize("response", [b"response", b""])
def test_responding_to_a_peer_that_is_gone(response: bytes) -> None:
    """If the peer has gone, that is no error, and the socket is closed."""
    ours, peer = socket.socketpair()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    finish(ours, response)
    assert ours.fileno() == -1
