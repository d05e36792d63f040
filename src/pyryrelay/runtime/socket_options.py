"""Options of connected sockets: how much the kernel holds for one, and what it says about it.

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
    "INHERITED",
    "NOTSENT_BYTES",
    "UNREAD_BYTES",
    "Delivery",
    "Socket",
    "delivery",
    "limit_send_buffer",
    "tune_socket",
]

Socket: TypeAlias = socket.SocketType
"""An accepted connection: the bare object, without what `socket.socket` puts around it."""
_NOTSENT_LOWAT: Final[int] = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
NOTSENT_BYTES: Final = 16384
"""How much the kernel may hold of what was never sent. By default it is megabytes, and on a slow link a ping behind
them would arrive when its time is long over."""
UNREAD_BYTES: Final = 1048576
"""How much the kernel may hold of what was not read, as far as ``net.core.rmem_max`` permits: without a bound megabytes
for each connection. A peer sends this much in a round trip at most, which is 20 MiB/s at 50 ms and 5 MiB/s at 200 ms. A
quarter of it made streams on one machine a quarter slower."""
_TCP_INFO_BYTES: Final = 152
"""``struct tcp_info`` of linux/tcp.h up to ``tcpi_min_rtt``, which came after ``tcpi_bytes_acked``."""
_BUF_LOCK, _SEND_LOCK = 72, 1
"""asm-generic/socket.h, since Linux 5.14: who sizes a socket's buffers. The one for receiving has a lock of its own."""
_AMPLE_BYTES: Final = 1 << 20
INHERITED: Final = sys.platform == "linux"
"""Whether accepted sockets have the TCP options of the one that listens."""


def tune_socket(sock: Socket) -> None:
    """Send small frames at once, keep what waits in the process, where control frames can pass, and bound the unread.

    A UNIX socket has neither option, and is left as it is.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, NOTSENT_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)


class Delivery(NamedTuple):
    """What a TCP socket has delivered: bytes that were acknowledged so far, those that were not, and a round trip."""

    acknowledged_bytes: int
    outstanding_bytes: int
    round_trip_s: float


def delivery(sock: Socket) -> Delivery | None:
    """See `Delivery`; None where the system does not say it."""
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
    """Let the kernel hold about ``size`` bytes that were not acknowledged; None leaves it to the kernel again.

    It doubles the number, and counts what it needs for itself too, which is about a third.
    """
    with contextlib.suppress(OSError):
        if size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size * 2 // 3)
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AMPLE_BYTES)
        locks = sock.getsockopt(socket.SOL_SOCKET, _BUF_LOCK)
        sock.setsockopt(socket.SOL_SOCKET, _BUF_LOCK, locks & ~_SEND_LOCK)
