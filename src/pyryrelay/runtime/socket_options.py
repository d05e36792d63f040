"""Options of connected sockets: how much the kernel buffers, and what it reports about the connection.

Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Final, NamedTuple, TypeAlias

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = [
    "INHERITS_OPTIONS",
    "NOTSENT_BYTES",
    "RECEIVE_BUFFER_BYTES",
    "Delivery",
    "Socket",
    "delivery",
    "limit_send_buffer",
    "tune_socket",
]

Socket: TypeAlias = socket.SocketType
"""An accepted connection: the C object, without the wrapper of `socket.socket`."""
_NOTSENT_LOWAT: Final[int] = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
NOTSENT_BYTES: Final = 16384
"""Unsent bytes that the kernel may buffer. The default is megabytes; on a slow link a ping behind them would time
out."""
RECEIVE_BUFFER_BYTES: Final = 1048576
"""Unread bytes that the kernel may buffer, as far as ``net.core.rmem_max`` permits; the default limit is megabytes for
each connection. A peer can send this much in one round trip, which is 20 MiB/s at 50 ms and 5 MiB/s at 200 ms. With a
quarter of it, streams on one machine were a quarter slower."""
_TCP_INFO_BYTES: Final = 152
"""Size of ``struct tcp_info`` of linux/tcp.h up to ``tcpi_min_rtt``, which was added after ``tcpi_bytes_acked``."""
_BUF_LOCK, _SEND_LOCK = 72, 1
"""SO_BUF_LOCK of asm-generic/socket.h, since Linux 5.14: a set bit keeps the kernel from resizing a buffer. The
receive buffer has a bit of its own."""
_RESTORED_SEND_BUFFER_BYTES: Final = 1 << 20
INHERITS_OPTIONS: Final = sys.platform == "linux"
"""Whether accepted sockets inherit the TCP options of the listening socket."""


def tune_socket(sock: Socket) -> None:
    """Send small frames immediately, and bound what the kernel buffers in both directions.

    Unsent data stays in the process, where control frames can overtake it. UNIX sockets do not have these options and
    are left unchanged.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, NOTSENT_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


class Delivery(NamedTuple):
    """What a TCP socket has delivered: acknowledged bytes so far, bytes not yet acknowledged, and the minimum RTT."""

    acknowledged_bytes: int
    outstanding_bytes: int
    round_trip_s: float


def delivery(sock: Socket) -> Delivery | None:
    """Return the `Delivery` of a socket; None where the system does not report it."""
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        acknowledged, round_trip_us = struct.unpack_from("=Q", info, 120)[0], struct.unpack_from("=I", info, 148)[0]
        (outstanding,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except (OSError, struct.error):
        return None
    return Delivery(acknowledged, outstanding, round_trip_us / 1e6)


def limit_send_buffer(sock: Socket, size: int | None) -> None:
    """Limit the unacknowledged bytes in the kernel to about ``size``; None lets the kernel choose again.

    The kernel doubles the number that is set, and about a third of the result is its own overhead.
    """
    with contextlib.suppress(OSError):
        if size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size * 2 // 3)
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _RESTORED_SEND_BUFFER_BYTES)
        locks = sock.getsockopt(socket.SOL_SOCKET, _BUF_LOCK)
        sock.setsockopt(socket.SOL_SOCKET, _BUF_LOCK, locks & ~_SEND_LOCK)
