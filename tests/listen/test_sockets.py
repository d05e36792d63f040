"""What the operating system says about a socket and what it is told, on real ones."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator

import pytest
from tests.end_to_end.harness import until

from pyryrelay.runtime.socket_options import delivery, limit_send_buffer, tune_socket

SO_BUF_LOCK, SOCK_RCVBUF_LOCK = 72, 2
"""asm-generic/socket.h, linux/socket.h; Linux 5.14 or newer."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel says this on Linux alone")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        peer = stack.enter_context(socket.create_connection(listener.getsockname()))
        yield stack.enter_context(listener.accept()[0]), peer


def test_what_the_peer_took_is_acknowledged(pair: tuple[socket.socket, socket.socket]) -> None:
    """And what it does not take is outstanding."""
    ours, peer = pair
    ours.setblocking(False)
    ours.sendall(b"x" * 1000)

    def acknowledged(size: int) -> bool:
        found = delivery(ours)
        return found is not None and (found.acknowledged_bytes, found.outstanding_bytes) == (size, 0)

    until(lambda: acknowledged(1000), "what was sent is acknowledged")
    sent = 1000
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += ours.send(b"x" * 100_000)

    def stuck() -> bool:
        found = delivery(ours)
        return found is not None and found.outstanding_bytes > 0

    assert stuck()
    found = delivery(ours)
    assert found is not None
    assert found.acknowledged_bytes + found.outstanding_bytes >= sent
    assert 0 < found.round_trip_s < 10
    received = 0
    peer.settimeout(20)
    while received < sent:
        received += len(peer.recv(1 << 20))
    until(lambda: acknowledged(sent), "everything is acknowledged")


def test_other_sockets_tell_nothing() -> None:
    """One of the UNIX domain, and one that is closed."""
    ours, peer = socket.socketpair()
    with ours, peer:
        assert delivery(ours) is None
        limit_send_buffer(ours, 8192)
    assert delivery(ours) is None
    limit_send_buffer(ours, 8192)


def test_what_the_kernel_may_hold_is_limited_and_freed(pair: tuple[socket.socket, socket.socket]) -> None:
    """Within a factor of two: it counts in its own way."""
    ours, _ = pair
    option, both = (socket.SOL_SOCKET, socket.SO_SNDBUF), (socket.SOL_SOCKET, SO_BUF_LOCK)
    tune_socket(ours)
    before = ours.getsockopt(*both)
    limit_send_buffer(ours, 30_000)
    assert 30_000 <= ours.getsockopt(*option) <= 60_000
    limit_send_buffer(ours, None)
    assert ours.getsockopt(*option) > 60_000
    assert ours.getsockopt(*both) == before == SOCK_RCVBUF_LOCK, "what it may hold unread is limited still"
