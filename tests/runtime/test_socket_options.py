"""Options of sockets, and what the kernel reports about a connection, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator

import pytest
from tests.end_to_end.harness import until

from pyryrelay.runtime.socket_options import (
    INHERITS_OPTIONS,
    NOTSENT_BYTES,
    RECEIVE_BUFFER_BYTES,
    delivery,
    limit_send_buffer,
    tune_socket,
)

TCP_NOTSENT_LOWAT = 25
SO_BUF_LOCK, SOCK_RCVBUF_LOCK = 72, 2
"""asm-generic/socket.h, linux/socket.h; Linux 5.14 or newer."""

Pair = tuple[socket.socket, socket.socket]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these options")


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a TCP connection; the listening socket of the first one was tuned."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        tune_socket(listener)
        peer = stack.enter_context(socket.create_connection(listener.getsockname()))
        yield stack.enter_context(listener.accept()[0]), peer


def assert_tuned(sock: socket.socket) -> None:
    """Assert that a socket has the options of `tune_socket`."""
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == NOTSENT_BYTES
    # Linux doubles the number, for its own overhead.
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * RECEIVE_BUFFER_BYTES


def test_a_socket_is_tuned(pair: Pair) -> None:
    """Small frames are sent immediately, and the kernel buffers a bounded number of bytes in both directions."""
    _, peer = pair
    tune_socket(peer)
    assert_tuned(peer)


def test_accepted_sockets_inherit_the_options(pair: Pair) -> None:
    """An accepted socket has the options of the listening socket, so it need not be tuned."""
    ours, _ = pair
    assert INHERITS_OPTIONS
    assert_tuned(ours)


def test_sockets_without_these_options_are_left_unchanged() -> None:
    """A UNIX socket has no TCP options, and a closed socket has none at all; both are no error."""
    ours, peer = socket.socketpair()
    with ours, peer:
        before = ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        tune_socket(ours)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == before
    tune_socket(ours)


def test_delivery_counts_what_the_peer_has_acknowledged(pair: Pair) -> None:
    """Sent bytes are outstanding until the peer's kernel has acknowledged them."""
    ours, peer = pair
    ours.setblocking(False)
    ours.sendall(b"x" * 1000)

    def is_acknowledged(size: int) -> bool:
        found = delivery(ours)
        return found is not None and (found.acknowledged_bytes, found.outstanding_bytes) == (size, 0)

    until(lambda: is_acknowledged(1000), "what was sent is acknowledged")
    sent = 1000
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += ours.send(b"x" * 100_000)
    found = delivery(ours)
    assert found is not None
    assert found.outstanding_bytes > 0
    assert found.acknowledged_bytes + found.outstanding_bytes >= sent
    assert 0 < found.round_trip_s < 10
    received = 0
    peer.settimeout(20)
    while received < sent:
        received += len(peer.recv(1 << 20))
    until(lambda: is_acknowledged(sent), "everything is acknowledged")


def test_other_sockets_report_no_delivery() -> None:
    """A UNIX socket and a closed socket have no `Delivery`, and limiting their buffer is no error."""
    ours, peer = socket.socketpair()
    with ours, peer:
        assert delivery(ours) is None
        limit_send_buffer(ours, 8192)
    assert delivery(ours) is None
    limit_send_buffer(ours, 8192)


def test_the_send_buffer_is_limited_and_restored(pair: Pair) -> None:
    """The kernel applies a limit within a factor of two; without one it sizes the buffer itself again."""
    ours, _ = pair
    size, locks = (socket.SOL_SOCKET, socket.SO_SNDBUF), (socket.SOL_SOCKET, SO_BUF_LOCK)
    tune_socket(ours)
    before = ours.getsockopt(*locks)
    limit_send_buffer(ours, 30_000)
    assert 30_000 <= ours.getsockopt(*size) <= 60_000
    limit_send_buffer(ours, None)
    assert ours.getsockopt(*size) > 60_000
    assert ours.getsockopt(*locks) == before == SOCK_RCVBUF_LOCK, "the receive buffer stays limited"
