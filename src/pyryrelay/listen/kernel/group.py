"""Sockets of one port for several processes, among which the kernel chooses by the source, and the drop socket.

The sockets share the port with SO_REUSEPORT, and a program of classic BPF returns the index of the one that gets a
connection (Linux 4.6): for jailed sources the drop socket, as `pyryrelay.listen.kernel.reuseport` describes, and for
all others a socket by the prefix of the source (`Steering`). Indexes follow the calls of listen(2).

One process makes all sockets and keeps them open, so that indexes stay, and connections to a process that has ended
wait in the queue of its socket for the next one. It needs no privilege, except for ports that need one to bind; the
program can be replaced later by the same or another user.

The program is attached before the first socket listens. While the others begin to listen, for about 100 µs, a
connection that is for one of them goes to one that listens already.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from pyryrelay.listen.kernel.bpf import Program, filter_program
from pyryrelay.listen.kernel.reuseport import QUEUE_LENGTH, SO_ATTACH_REUSEPORT_CBPF, queued_at
from pyryrelay.listen.kernel.steering import Steering
from pyryrelay.listen.sockets import Address, Listening, Socket, attach_program, bound_socket

__all__ = ["SocketGroup"]

_NO_STEERING: Final = "this system cannot direct connections to several sockets"


class SocketGroup:
    """See the module's docstring. ``sockets`` are those of the processes by index; ``drop_socket`` may be None."""

    def __init__(self, sockets: Sequence[Listening], drop_socket: Listening | None, steering: Steering) -> None:
        """Take over sockets that listen already, with the program that they have."""
        self.sockets = tuple(sockets)
        self.drop_socket = drop_socket
        self.steering = steering

    @classmethod
    def open(
        cls, port: int, interface: str, backlog: int, silence_s: float, steering: Steering, *, drops: bool
    ) -> SocketGroup:
        """Listen on all sockets; ``drops`` is whether there is a drop socket. Raises `OSError`, and opens nothing then.

        Port 0 is one that is free. The kernel keeps silent connections to itself for ``silence_s`` seconds.
        """
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, _NO_STEERING)
        opened: list[Listening] = []
        try:
            _refuse_taken(port, interface)
            for _ in range(steering.count + drops):
                opened.append(bound_socket(port, interface, silence_s, shares_port=True))
                port = opened[0].getsockname()[1]
            group = cls(opened[: steering.count], opened[-1] if drops else None, steering)
            group.attach(filter_program((), steering=steering))
            for sock in group.sockets:
                sock.listen(backlog)
            if group.drop_socket is not None:
                group.drop_socket.listen(QUEUE_LENGTH - 1)
        except BaseException:
            for sock in opened:
                sock.close()
            raise
        return group

    @property
    def drops(self) -> bool:
        """Whether there is a drop socket."""
        return self.drop_socket is not None

    def attach(self, program: Program) -> None:
        """Choose by this program from now on, which was made with `steering`. Raises `OSError`."""
        count = len(self.sockets)
        verdicts = program.verdicts(keep=0, drop=count if self.drops else 0)
        attach_program(self.sockets[0], SO_ATTACH_REUSEPORT_CBPF, verdicts)

    def queued(self) -> Iterator[tuple[Socket, Address]]:
        """Accept the connections to the drop socket, which the caller closes. See `DropSocket.queued`."""
        return queued_at(self.drop_socket) if self.drop_socket is not None else iter(())

    def close(self) -> None:
        """Close all sockets, here."""
        for sock in (*self.sockets, *([] if self.drop_socket is None else [self.drop_socket])):
            sock.close()


def _refuse_taken(port: int, interface: str) -> None:
    """Raise `OSError` if another program of the same user has the port, which SO_REUSEPORT would let join."""
    if port:
        bound_socket(port, interface, 1.0).close()
