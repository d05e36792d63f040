"""A second socket beside a listening socket, to which the kernel directs the connections that it is to drop.

It needs no privilege. Sockets of one port with SO_REUSEPORT share its connections, and a program of classic BPF may
choose the socket for each new connection (Linux 4.6, SO_ATTACH_REUSEPORT_CBPF). Here the program chooses the listening
socket, except for addresses that are to be dropped: their connections go to the second socket, whose queue is short and
nearly always full. The kernel does not answer their SYNs, and the listening process does not notice them.

The relay accepts what is in the queue from time to time (`DropSocket.queued`), and treats it like any other connection.
So a client that connects only rarely is still counted and reset, and a client that should not have been dropped is
served. Only a flood is never answered.

The tests show how the kernel behaves:

* Only the user who opened the first socket may add a second one. A process that drops privileges has to open both
  before. Replacing the program needs no privilege.
* The first socket has the option from then on, so another process of the same user can join the group. The kernel
  sends it no connections, because the program names only the first two sockets. A process that does not set the option
  cannot bind, as usual.
* Accepted connections are not affected.
* A SYN for which the queue has no room counts as ListenOverflows in ``nstat``. A flood of SYNs without ACKs never fills
  the queue; then the kernel may switch to SYN cookies, and logs that once.
* While the second socket is opened, for about 100 µs, connections go to either of the two at random.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator
from typing import Final

from pyryrelay.listen.kernel.bpf import Program, filter_program
from pyryrelay.listen.sockets import Address, Listening, Socket, attach_program
from pyryrelay.runtime.socket_options import tune_socket

__all__ = ["QUEUE_LENGTH", "DropSocket", "queued_at"]

QUEUE_LENGTH: Final = 16
"""Most connections that wait in the queue."""

SO_ATTACH_REUSEPORT_CBPF: Final = 51
"""asm-generic/socket.h; the socket module does not have it."""
_LISTENING, _DROP = 0, 1
"""Indexes of the sockets in the group, in the order of their calls of listen(2)."""


class DropSocket:
    """The drop socket beside one listening TCP socket. Call `close` before that socket is closed."""

    def __init__(self, listening: socket.socket, inherited: socket.socket | None = None) -> None:
        """Open the socket without directing anything to it. Raises `OSError`, and then changes nothing.

        An ``inherited`` socket is in the group already, and what is dropped stays so until `attach`.
        """
        if inherited is not None:
            self._listening, self._sock = listening, Listening.adopt(inherited)
            return
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "this system cannot direct connections to a second socket")
        if listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            raise OSError(errno.EBUSY, "other sockets share the port")
        self._listening = listening
        self._sock = sock = Listening(listening.family)
        try:
            sock.setblocking(False)
            if listening.family == socket.AF_INET6:
                only = listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tune_socket(sock)
            for one in (listening, sock):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(listening.getsockname())
            sock.listen(QUEUE_LENGTH - 1)
            self.attach(filter_program(()))
        except OSError:
            self.close()
            raise

    def attach(self, program: Program) -> None:
        """Direct the connections that ``program`` drops to this socket. Raises `OSError`."""
        attach_program(self._listening, SO_ATTACH_REUSEPORT_CBPF, program.verdicts(keep=_LISTENING, drop=_DROP))

    def queued(self) -> Iterator[tuple[Socket, Address]]:
        """Accept the connections in the queue, at most as many as it has room for. Raises `OSError` on other failures.

        The caller closes the accepted sockets.
        """
        return queued_at(self._sock)

    def share(self) -> socket.socket:
        """Return the socket, for a process that takes it over."""
        return self._sock

    def abandon(self) -> None:
        """Close this process's descriptor, and leave the rest to the process that has taken the socket over."""
        self._sock.close()

    def close(self) -> None:
        """Direct nothing to this socket any more."""
        self._sock.close()
        with contextlib.suppress(OSError):
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def queued_at(sock: Listening) -> Iterator[tuple[Socket, Address]]:
    """Accept the connections that wait at a drop socket. See `DropSocket.queued`."""
    for _ in range(QUEUE_LENGTH if sock.fileno() >= 0 else 0):
        try:
            yield sock.accept()
        except BlockingIOError:
            return
