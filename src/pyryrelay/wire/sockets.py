"""What the door asks of the operating system: a listening socket, one read, one answer, and what its errors mean.

Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import sys
from math import ceil
from typing import Any, Final, NamedTuple, TypeAlias

from twisted.internet.abstract import isIPv6Address

from pyryrelay.wire.bpf import Program

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = [
    "EXHAUSTED",
    "INHERITED",
    "NOTSENT_BYTES",
    "PASSING",
    "RECEIVE_BYTES",
    "UNREAD_BYTES",
    "Address",
    "Delivery",
    "Listening",
    "Socket",
    "attach_program",
    "delivery",
    "finish",
    "limit_send_buffer",
    "listening_socket",
    "read",
    "tune_socket",
]

Socket: TypeAlias = socket.SocketType
"""An accepted connection: the bare object, without what `socket.socket` puts around it."""
Address: TypeAlias = tuple[Any, ...]
"""Of a peer, as the system has it: host, port, and more for IPv6."""

RECEIVE_BYTES: Final = 4096
"""What a plain head fits in. More is the entrance's."""

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
PASSING: Final = frozenset(
    getattr(errno, name, -1)
    for name in (
        *("EINTR", "ECONNABORTED", "EPERM", "EPROTO", "ENOPROTOOPT", "EOPNOTSUPP"),
        *("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET"),
    )
)
"""What accept(2) says of one connection alone: it was aborted meanwhile, or a packet filter did not want it."""
_AT_ONCE: Final[int] = getattr(socket, "MSG_DONTWAIT", 0)
_WITH_FIN: Final = _AT_ONCE | getattr(socket, "MSG_MORE", 0)
"""The end of the connection follows at once, and may share the segment with what is sent."""
_RESET: Final = struct.pack("ii", 1, 0)
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
_DEFER_ACCEPT: Final[int | None] = getattr(socket, "TCP_DEFER_ACCEPT", None)


class Listening(socket.socket):
    """A listening socket of one family, whose `accept` is `socket.socket.accept` for less."""

    __slots__ = ("_family",)

    def __init__(self, family: socket.AddressFamily) -> None:
        super().__init__(family)
        self._family = family

    def accept(self) -> tuple[Socket, Address]:  # type: ignore[override]
        """The next connection, which blocks, and its peer's address."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return socket.SocketType(self._family, socket.SOCK_STREAM, 0, descriptor), address


def listening_socket(port: int, interface: str, backlog: int, silence_s: float) -> Listening:
    """A socket that listens as Twisted's own do, and leaves connections that are silent for so long to the kernel."""
    is_v6 = isIPv6Address(interface)
    listening = Listening(socket.AF_INET6 if is_v6 else socket.AF_INET)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _DEFER_ACCEPT is not None:
            with contextlib.suppress(OSError):
                listening.setsockopt(socket.IPPROTO_TCP, _DEFER_ACCEPT, max(1, ceil(silence_s)))
        tune_socket(listening)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        place = socket.getaddrinfo(interface, port, flags=numeric)[0][4] if is_v6 else (interface, port)
        listening.bind(place)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


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


def attach_program(sock: socket.socket, option: int, program: Program) -> None:
    """Set an option that takes a program of classic BPF (``struct sock_fprog``). Raises `OSError`."""
    code = bytes(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", len(program.instructions), ctypes.addressof(buffer)))


def read(sock: Socket) -> bytes | None:
    """What is there; None if nothing is yet, and no bytes if the peer is gone."""
    try:
        return sock.recv(RECEIVE_BYTES, _AT_ONCE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def finish(sock: Socket, answer: bytes) -> None:
    """Answer and close; cut the connection off where there is no answer."""
    try:
        if answer:
            sock.send(answer, _WITH_FIN)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass  # the peer has gone
    sock.close()
