"""Dropping jailed sources in the kernel: a decoy beside a listening socket, or a filter on it.

A `DropSocket` needs no privilege, so it is what everybody gets. Where there can be none, as beside a socket that
another user handed down, there may be a filter (SO_ATTACH_FILTER, a program of `bpf`). What the kernel does with
filters, as the tests find it:

* A packet that the filter drops is never answered: the source's SYN is retried until its own timeout.
* An accepted socket inherits the filter that its listener had at that moment, and keeps it when the listener gets
  another one. So connections that a source had before it was jailed go on, which is what a jail at accept means. But
  each keeps the old program in memory and runs it for every packet: `detach` it from each socket that was accepted.
  Detaching needs no privilege.
* A listener may hold as much as the sysctl net.core.optmem_max says, the old and the new program together while one
  replaces the other: 128 KiB on current kernels, 20 KiB on old ones. `KernelDrop` covers fewer networks if that is
  little. For a decoy's program it is a bound too.
* Current kernels want CAP_NET_ADMIN for filters on TCP sockets, older ones want nothing. Privileges count again each
  time a program is replaced, so a process that gives them up stays with the filter it had: start `KernelDrop` after
  that, not before.
* A socket that was handed down, as systemd does, keeps its filter when the process ends that attached it.

Whoever may not use this still has every jailed source dropped at accept.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.listen.kernel.bpf import MAX_INSTRUCTIONS, Program, filter_program
from pyryrelay.listen.kernel.reuseport import DropSocket
from pyryrelay.listen.sockets import attach_program

__all__ = ["Filter", "KernelDrop", "KernelDropError", "detach", "is_tcp"]

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
    """Whether there are source addresses to drop."""
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def detach(sock: socket.socket) -> bool:
    """Take the filter off a socket, listening or accepted; say whether there was one that could be taken off."""
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

    def put(self, program: Program) -> None:
        """Attach `program` in the place of the one there is; without that one, where both have no room at once.

        Raises `OSError`.
        """
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "this system has no socket filters")
        try:
            attach_program(self._sock, SO_ATTACH_FILTER, program)
        except OSError as error:
            if error.errno != errno.ENOMEM or not detach(self._sock):
                raise
            attach_program(self._sock, SO_ATTACH_FILTER, program)

    def close(self) -> None:
        """Drop nobody any more."""
        detach(self._sock)


class KernelDrop:
    """Keeps decoys and filters up to date.

    Call `stop` at the end, and `detach` on a socket that was handed down even if nothing shall be dropped: the
    process that had it before may not have had the time.
    """

    def __init__(self, drop_sockets: Iterable[DropSocket], sockets: Iterable[socket.socket] = ()) -> None:
        """Do nothing yet. `sockets` listen, and shall have filters."""
        self._ways: list[DropSocket | Filter] = [*drop_sockets, *map(Filter, sockets)]
        self._failed: list[DropSocket | Filter] = []
        self._jail_exempt: tuple[IPNetwork, ...] = ()
        self._limit = MAX_INSTRUCTIONS
        self._there: Program | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is kept up to date."""
        return bool(self._ways)

    @property
    def filters_sockets(self) -> bool:
        """Whether accepted sockets carry a filter that they should not keep."""
        return any(isinstance(way, Filter) for way in self._ways)

    def spare(self, networks: Iterable[IPNetwork]) -> None:
        """Never drop these from the next `update` on: trusted proxies, loopback, allowed addresses."""
        self._jail_exempt = tuple(networks)

    def start(self) -> None:
        """Drop nobody, to see whether it can be done. Raises `KernelDropError` where not."""
        try:
            self.update(())
        finally:
            self.give_up()

    def update(self, networks: Sequence[IPNetwork]) -> int:
        """Drop connections from `networks`, the first ones first; return how many that are.

        Raises `KernelDropError` if it cannot be done everywhere; elsewhere it is done. Where it cannot, it is not tried
        again, and `give_up` must be called: what cannot be replaced would outlast its sentences.

        May be called in a thread; everything else here is for the reactor's.
        """
        program = filter_program(networks, self._jail_exempt, self._limit)
        if program == self._there:
            return program.covered
        failures = self._put(program)
        while self._lacks_room(failures) and len(program.instructions) // 2 >= MIN_INSTRUCTIONS:
            self._limit = len(program.instructions) // 2
            program = filter_program(networks, self._jail_exempt, self._limit)
            failures = self._put(program)
        self._there = program
        self._ways = [way for way in self._ways if way not in failures]
        self._failed += failures
        for error in failures.values():
            raise _error(error)
        return program.covered

    def give_up(self) -> None:
        """Drop nobody any more where an update failed."""
        while self._failed:
            self._failed.pop().close()

    def _put(self, program: Program) -> dict[DropSocket | Filter, OSError]:
        """Put `program` everywhere; where it cannot be done, and why."""
        failures: dict[DropSocket | Filter, OSError] = {}
        for way in self._ways:
            try:
                way.put(program)
            except OSError as error:
                failures[way] = error
        return failures

    @staticmethod
    def _lacks_room(failures: Mapping[DropSocket | Filter, OSError]) -> bool:
        return any(error.errno == errno.ENOMEM for error in failures.values())

    def stop(self) -> None:
        """Drop nobody any more."""
        self.give_up()
        while self._ways:
            self._ways.pop().close()
