"""Drop packets of jailed addresses in the kernel, with a second socket beside a listening socket, or a filter on it.

A `DropSocket` needs no privilege and is preferred. Where there can be none, as beside a listening socket that another
user has handed down, a filter may be used (SO_ATTACH_FILTER, with a program of `bpf`). The tests show how the kernel
treats filters:

* A packet that the filter drops is never answered, so the source retries its SYN until it times out.
* An accepted socket inherits the filter that its listening socket has at that moment, and keeps it when the listening
  socket gets another one. So connections that a source had before it was jailed continue, as they do with a jail that
  is checked at accept. But each of them keeps the old program in memory and runs it for every packet: call `detach` on
  every accepted socket. Detaching needs no privilege.
* The sysctl net.core.optmem_max bounds the memory of a listening socket's programs, including the old one while the new
  one replaces it: 128 KiB on current kernels, 20 KiB on old ones. `KernelDrop` covers fewer networks if that is too
  little. The bound also applies to the program of a `DropSocket`.
* Current kernels require CAP_NET_ADMIN for filters on TCP sockets, older ones require nothing. Privileges are checked
  each time a program is replaced, so a process that drops them is left with the filter it had: call `KernelDrop.start`
  after dropping privileges, not before.
* A socket that was handed down, as systemd does, keeps its filter when the process that attached it ends.

Without the permission to do this, jailed addresses are still dropped at accept.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.listen.kernel.bpf import MAX_INSTRUCTIONS, Program, filter_program
from pyryrelay.listen.kernel.reuseport import DropSocket
from pyryrelay.listen.sockets import attach_program

__all__ = ["Filter", "KernelDrop", "KernelDropError", "detach", "is_tcp"]

MIN_INSTRUCTIONS: Final = 64
"""`KernelDrop` fails rather than attach a program that is shorter than this."""

SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27
"""asm-generic/socket.h; the socket module does not have them."""


class KernelDropError(OSError):
    """The kernel has refused a program. The text is one line that says what happens instead, why, and the fix."""

    def __str__(self) -> str:
        """Return the text without the error number, which does not help operators."""
        return str(self.strerror)


_CAUSES: Final = {
    errno.EPERM: "the process may not filter sockets; give it the capability CAP_NET_ADMIN "
    "(in a systemd unit: AmbientCapabilities=CAP_NET_ADMIN and CapabilityBoundingSet=CAP_NET_ADMIN)",
    errno.ENOMEM: "the program is too long; raise the sysctl net.core.optmem_max",
    errno.ENOPROTOOPT: "this system has no socket filters",
    errno.ENOSYS: "this system has no socket filters",
}


def _error(error: OSError) -> KernelDropError:
    cause = _CAUSES.get(error.errno or 0, error.strerror)
    return KernelDropError(error.errno, f"jailed sources are dropped at accept, not in the kernel: {cause}")


def is_tcp(sock: socket.socket) -> bool:
    """Return whether a socket is a TCP socket, whose peers have addresses."""
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def detach(sock: socket.socket) -> bool:
    """Remove the filter of a listening or accepted socket; return whether there was one that could be removed."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except OSError:
        return False
    return True


class Filter:
    """The filter of one listening socket."""

    def __init__(self, sock: socket.socket) -> None:
        """Attach nothing yet."""
        self._sock = sock

    def attach(self, program: Program) -> None:
        """Replace the program. If there is no room for both at once, the old one is removed first. Raises `OSError`."""
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "this system has no socket filters")
        try:
            attach_program(self._sock, SO_ATTACH_FILTER, program)
        except OSError as error:
            if error.errno != errno.ENOMEM or not detach(self._sock):
                raise
            attach_program(self._sock, SO_ATTACH_FILTER, program)

    def close(self) -> None:
        """Remove the filter."""
        detach(self._sock)


Dropper: TypeAlias = DropSocket | Filter


class KernelDrop:
    """Update drop sockets and filters.

    Call `stop` at the end. Call `detach` on a socket that was handed down even if nothing is to be dropped: the process
    that had it before may have ended without doing so.
    """

    def __init__(self, drop_sockets: Iterable[DropSocket], sockets: Iterable[socket.socket] = ()) -> None:
        """Attach nothing yet. ``sockets`` are listening sockets that get filters."""
        self._droppers: list[Dropper] = [*drop_sockets, *map(Filter, sockets)]
        self._failed: list[Dropper] = []
        self._jail_exempt: tuple[IPNetwork, ...] = ()
        self._limit = MAX_INSTRUCTIONS
        self._attached: Program | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is a drop socket or filter to update."""
        return bool(self._droppers)

    @property
    def filters_sockets(self) -> bool:
        """Whether accepted sockets inherit a filter that must be detached."""
        return any(isinstance(dropper, Filter) for dropper in self._droppers)

    def set_exempt(self, networks: Iterable[IPNetwork]) -> None:
        """Set the networks that are never dropped, from the next `update` on."""
        self._jail_exempt = tuple(networks)

    def start(self) -> None:
        """Attach empty programs, to check that it is possible. Raises `KernelDropError` if it is not."""
        try:
            self.update(())
        finally:
            self.remove_failed()

    def update(self, networks: Sequence[IPNetwork]) -> int:
        """Drop connections from ``networks``; return how many of them, counted from the first, have room.

        Raises `KernelDropError` if that fails for a socket; the other sockets are updated. A socket that has failed is
        not tried again. Call `remove_failed` then: a program that cannot be replaced would outlast its sentences.

        This method may be called in a thread; all others must be called in the reactor's thread.
        """
        program = filter_program(networks, self._jail_exempt, self._limit)
        if program == self._attached:
            return program.covered
        failures = self._attach(program)
        while self._lacks_room(failures) and len(program.instructions) // 2 >= MIN_INSTRUCTIONS:
            self._limit = len(program.instructions) // 2
            program = filter_program(networks, self._jail_exempt, self._limit)
            failures = self._attach(program)
        self._attached = program
        self._droppers = [dropper for dropper in self._droppers if dropper not in failures]
        self._failed += failures
        for error in failures.values():
            raise _error(error)
        return program.covered

    def remove_failed(self) -> None:
        """Stop dropping at the sockets whose update has failed."""
        while self._failed:
            self._failed.pop().close()

    def _attach(self, program: Program) -> dict[Dropper, OSError]:
        """Attach a program everywhere; return the failures."""
        failures: dict[Dropper, OSError] = {}
        for dropper in self._droppers:
            try:
                dropper.attach(program)
            except OSError as error:
                failures[dropper] = error
        return failures

    @staticmethod
    def _lacks_room(failures: Mapping[Dropper, OSError]) -> bool:
        return any(error.errno == errno.ENOMEM for error in failures.values())

    def stop(self) -> None:
        """Stop dropping at all sockets."""
        self.remove_failed()
        while self._droppers:
            self._droppers.pop().close()
