"""Calls of the operating system: a listening socket, one read, one answer, and what its errors mean.

Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from math import ceil
from typing import Any, Final, TypeAlias

from twisted.internet.abstract import isIPv6Address

from pyryrelay.listen.kernel.bpf import Program
from pyryrelay.runtime.socket_options import Socket, tune_socket

__all__ = [
    "EXHAUSTED",
    "PASSING",
    "RECEIVE_BYTES",
    "SEND_BYTES",
    "Address",
    "AnySocket",
    "Listening",
    "Socket",
    "attach_program",
    "bound_socket",
    "finish",
    "listening_socket",
    "read",
]

Address: TypeAlias = tuple[Any, ...]
"""Of a peer, in the form of the system: host, port, and more for IPv6."""

AnySocket: TypeAlias = socket.socket
"""A socket of the module `socket`, where that name means something else."""

RECEIVE_BYTES: Final = 4096
"""Enough for a plain head. Connections that have sent more get an `HttpConnection`."""
SEND_BYTES: Final = 8192
"""What `finish` can send on a new connection: the kernel's buffer for it has at least twice that size."""

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
PASSING: Final = frozenset(
    getattr(errno, name, -1)
    for name in (
        *("EINTR", "ECONNABORTED", "EPERM", "EPROTO", "ENOPROTOOPT", "EOPNOTSUPP"),
        *("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET"),
    )
)
"""Errors of accept(2) about a single connection: it was aborted meanwhile, or a packet filter refused it."""
_AT_ONCE: Final[int] = getattr(socket, "MSG_DONTWAIT", 0)
_WITH_FIN: Final = _AT_ONCE | getattr(socket, "MSG_MORE", 0)
"""The end of the connection follows at once, and may go into the same segment."""
_RESET: Final = struct.pack("ii", 1, 0)
_DEFER_ACCEPT: Final[int | None] = getattr(socket, "TCP_DEFER_ACCEPT", None)


class Listening(socket.socket):
    """A listening socket of one family, whose `accept` costs less than `socket.socket.accept`."""

    __slots__ = ("_family",)

    def __init__(self, family: socket.AddressFamily, fileno: int | None = None) -> None:
        super().__init__(family, fileno=fileno)
        self._family = family

    @classmethod
    def adopt(cls, sock: socket.socket) -> Listening:
        """Take over the descriptor of a socket that listens already."""
        listening = cls(sock.family, sock.detach())
        listening.setblocking(False)
        return listening

    def accept(self) -> tuple[Socket, Address]:  # type: ignore[override]
        """Return the next connection, as a blocking socket, and its peer's address."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return socket.SocketType(self._family, socket.SOCK_STREAM, 0, descriptor), address


def listening_socket(port: int, interface: str, backlog: int, silence_s: float) -> Listening:
    """Return a socket that listens like Twisted's own, and leaves silent connections to the kernel for so long."""
    listening = bound_socket(port, interface, silence_s)
    try:
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def bound_socket(port: int, interface: str, silence_s: float, *, shares_port: bool = False) -> Listening:
    """Return the same before it listens. With ``shares_port`` others of this user may have the same port."""
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
        if shares_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(place)
    except BaseException:
        listening.close()
        raise
    return listening


def attach_program(sock: socket.socket, option: int, program: Program) -> None:
    """Set an option that takes a program of classic BPF (``struct sock_fprog``). Raises `OSError`."""
    code = bytes(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", len(program.instructions), ctypes.addressof(buffer)))


def read(sock: Socket) -> bytes | None:
    """Return what has arrived; None if nothing has, and no bytes if the peer is gone."""
    try:
        return sock.recv(RECEIVE_BYTES, _AT_ONCE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def finish(sock: Socket, answer: bytes) -> None:
    """Send an answer and close; an empty one resets the connection."""
    try:
        if answer:
            sock.send(answer, _WITH_FIN)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass  # the peer has gone
    sock.close()
