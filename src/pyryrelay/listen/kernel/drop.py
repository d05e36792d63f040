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

import contextlib
import errno
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from twisted.logger import Logger

from pyryrelay.config.derive import drops_in_kernel
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.listen.kernel.bpf import MAX_INSTRUCTIONS, Program, filter_program
from pyryrelay.listen.kernel.group import SocketGroup
from pyryrelay.listen.kernel.reuseport import DropSocket
from pyryrelay.listen.kernel.steering import Steering
from pyryrelay.listen.sockets import attach_program

__all__ = ["Filter", "KernelDrop", "KernelDropError", "detach", "is_tcp", "kernel_drop"]

_log = Logger(namespace="pyryrelay")

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


Dropper: TypeAlias = DropSocket | SocketGroup | Filter


class _Programs:
    """The programs that drop the same networks, for single sockets and for groups."""

    def __init__(self, plain: Program, steered: Mapping[Steering, Program]) -> None:
        self.plain = plain
        self.steered = steered

    def of(self, dropper: Dropper) -> Program:
        """Return the program for a dropper."""
        return self.steered[dropper.steering] if isinstance(dropper, SocketGroup) else self.plain

    @property
    def covered(self) -> int:
        """How many networks all of them drop."""
        return min(program.covered for program in (self.plain, *self.steered.values()))

    @property
    def length(self) -> int:
        """Number of instructions of the longest one."""
        return max(len(program.instructions) for program in (self.plain, *self.steered.values()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Programs) and (self.plain, self.steered) == (other.plain, other.steered)

    def __hash__(self) -> int:
        return hash(self.plain)


class KernelDrop:
    """Update drop sockets and filters.

    A `SocketGroup` among the drop sockets has a program of its own, which steers what it does not drop, and goes on to
    do so when it has failed to drop or is told to stop.

    Call `stop` at the end. Call `detach` on a socket that was handed down even if nothing is to be dropped: the process
    that had it before may have ended without doing so.
    """

    def __init__(self, drop_sockets: Iterable[DropSocket | SocketGroup], sockets: Iterable[socket.socket] = ()) -> None:
        """Attach nothing yet. ``sockets`` are listening sockets that get filters."""
        self._droppers: list[Dropper] = [*drop_sockets, *map(Filter, sockets)]
        self._failed: list[Dropper] = []
        self._jail_exempt: tuple[IPNetwork, ...] = ()
        self._limit = MAX_INSTRUCTIONS
        self._attached: _Programs | None = None

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
        programs = self._programs(networks)
        if programs == self._attached:
            return programs.covered
        failures = self._attach(programs)
        while self._lacks_room(failures) and programs.length // 2 >= MIN_INSTRUCTIONS:
            self._limit = programs.length // 2
            programs = self._programs(networks)
            failures = self._attach(programs)
        self._attached = programs
        self._droppers = [dropper for dropper in self._droppers if dropper not in failures]
        self._failed += failures
        for error in failures.values():
            raise _error(error)
        return programs.covered

    def _programs(self, networks: Sequence[IPNetwork]) -> _Programs:
        steerings = {dropper.steering for dropper in self._droppers if isinstance(dropper, SocketGroup)}
        steered = {
            steering: filter_program(networks, self._jail_exempt, self._limit, steering) for steering in steerings
        }
        return _Programs(filter_program(networks, self._jail_exempt, self._limit), steered)

    def remove_failed(self) -> None:
        """Stop dropping at the sockets whose update has failed."""
        while self._failed:
            _stop(self._failed.pop())

    def _attach(self, programs: _Programs) -> dict[Dropper, OSError]:
        """Attach programs everywhere; return the failures."""
        failures: dict[Dropper, OSError] = {}
        for dropper in self._droppers:
            try:
                dropper.attach(programs.of(dropper))
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
            _stop(self._droppers.pop())


def _stop(dropper: Dropper) -> None:
    """Drop nothing any more at a socket. A group goes on to steer."""
    if not isinstance(dropper, SocketGroup):
        dropper.close()
        return
    with contextlib.suppress(OSError):
        dropper.attach(filter_program((), steering=dropper.steering))


def kernel_drop(
    settings: SharedSettings,
    handed_down: Iterable[socket.socket],
    drop_sockets: Iterable[DropSocket | SocketGroup],
    missing: Mapping[socket.socket, str],
) -> KernelDrop | None:
    """Return what drops in the kernel, with the privileges that are left; None for nothing.

    ``missing`` are sockets that can have no drop socket, and why: they get a filter only with ``--kernel-drop``, and
    the log names the reasons otherwise.
    """
    for sock in handed_down:
        # It may have the filter of a process that had no time to take it off.
        detach(sock)
    wanted = settings.kernel_drop
    if missing and wanted is None and drops_in_kernel(settings):
        _log.info(
            "jailed sources are dropped at accept on {count} of the sockets, not in the kernel: {reason}",
            count=len(missing),
            reason=", ".join(sorted(set(missing.values()))),
        )
    kernel = KernelDrop(drop_sockets, missing if wanted else ())
    return kernel if kernel.is_on else None
