"""Dropping jailed sources in the kernel: a socket filter (see `bpf`) on the listening sockets.

What the kernel does, as the tests find it:

* A packet that the filter drops is never answered: the source's SYN is retried until its own timeout.
* An accepted socket inherits the filter that its listener had at that moment, and keeps it when the listener gets
  another one. So connections that a source had before it was jailed go on, which is what a jail at accept means. But
  each keeps the old program in memory and runs it for every packet: `detach` it from each socket that was accepted.
  Detaching needs no privilege.
* A listener may hold as much as the sysctl net.core.optmem_max says, the old and the new program together while one
  replaces the other: 128 KiB on current kernels, 20 KiB on old ones. `KernelDrop` covers fewer networks if that is
  little.
* Current kernels want CAP_NET_ADMIN for filters on TCP sockets, older ones want nothing. Privileges count again each
  time a program is replaced, so a process that gives them up stays with the filter it had: start `KernelDrop` after
  that, not before.
* A socket that was handed down, as systemd does, keeps its filter when the process ends that attached it.

Whoever may not use this still has every jailed source dropped at accept.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from pyryrelay.guard.lists import IPNetwork
from pyryrelay.wire.bpf import MAX_INSTRUCTIONS, Program, filter_program

__all__ = ["KernelDrop", "KernelDropError", "attach", "detach", "filter_program"]

MIN_INSTRUCTIONS: Final = 64
"""`KernelDrop` gives up rather than attach less than this."""

SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27
"""asm-generic/socket.h; the socket module does not have them."""


class KernelDropError(OSError):
    """The kernel does not take the filter. The text is one line that says what happens instead, why, and the fix."""

    def __str__(self) -> str:
        """The sentence alone: the number of the error tells an operator nothing."""
        return str(self.strerror)


def attach(sock: socket.socket, program: Program) -> None:
    """Put `program` on a socket, in the place of the one it has. Raises `KernelDropError`."""
    if not sys.platform.startswith("linux"):
        raise KernelDropError(errno.ENOSYS, _error_text("this system has no socket filters"))
    code = bytes(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    try:
        sock.setsockopt(
            socket.SOL_SOCKET,
            SO_ATTACH_FILTER,
            struct.pack("@HP", len(program.instructions), ctypes.addressof(buffer)),
        )
    except OSError as error:
        raise KernelDropError(error.errno, _error_text(_CAUSES.get(error.errno or 0, error.strerror))) from None


_CAUSES: Final = {
    errno.EPERM: "the process may not filter sockets; give it the capability CAP_NET_ADMIN "
    "(in a systemd unit: AmbientCapabilities=CAP_NET_ADMIN and CapabilityBoundingSet=CAP_NET_ADMIN)",
    errno.ENOMEM: "the program is too long; raise the sysctl net.core.optmem_max",
    errno.ENOPROTOOPT: "this system has no socket filters",
}


def _error_text(cause: str | None) -> str:
    return f"jailed sources are dropped at accept, not in the kernel: {cause}"


def detach(sock: socket.socket) -> bool:
    """Take the filter off a socket, listening or accepted; say whether there was one that could be taken off."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except OSError:
        return False
    return True


class KernelDrop:
    """Keeps the filters of some listening sockets up to date; sockets that are not TCP over IP are left alone.

    Call `stop` at the end, and `detach` on a socket that was handed down even if nothing shall be dropped: the
    process that had it before may not have had the time.
    """

    def __init__(self, sockets: Iterable[socket.socket], spared: Iterable[IPNetwork] = ()) -> None:
        """Do nothing yet. `spared`: trusted proxies, loopback, allowed addresses, whatever must never be dropped."""
        self._sockets = [sock for sock in sockets if sock.family in (socket.AF_INET, socket.AF_INET6)]
        self._spared = tuple(spared)
        self._limit = MAX_INSTRUCTIONS
        self._attached: Program | None = None

    def start(self) -> None:
        """Attach a filter that drops nobody, to see whether it can be done. Raises `KernelDropError`."""
        self.update(())

    def update(self, networks: Sequence[IPNetwork]) -> int:
        """Drop packets from `networks`, the first ones first; return how many that are.

        Raises `KernelDropError` if it cannot be done; then nobody is dropped: a filter that cannot be replaced
        would outlast its sentences.
        """
        program = filter_program(networks, self._spared, self._limit)
        if program != self._attached:
            try:
                program = self._attach(program, networks)
            except KernelDropError:
                self.stop()
                raise
            self._attached = program
        return program.covered

    def _attach(self, program: Program, networks: Sequence[IPNetwork]) -> Program:
        """Attach to all sockets, with fewer networks if there is not room for all."""
        while True:
            try:
                for sock in self._sockets:
                    _replace(sock, program)
                return program
            except KernelDropError as error:
                if error.errno != errno.ENOMEM or self._limit // 2 < MIN_INSTRUCTIONS:
                    raise
                self._limit = min(self._limit, len(program.instructions)) // 2
                program = filter_program(networks, self._spared, self._limit)

    def stop(self) -> None:
        """Drop nobody any more."""
        self._attached = None
        for sock in self._sockets:
            detach(sock)


def _replace(sock: socket.socket, program: Program) -> None:
    """Attach `program`; if there is no room for it beside the old one, without the old one."""
    try:
        attach(sock, program)
    except KernelDropError as error:
        if error.errno != errno.ENOMEM or not detach(sock):
            raise
        attach(sock, program)
