"""A second socket beside one that listens, which takes in whoever the kernel shall keep away. It needs no privilege.

Sockets of one port that have SO_REUSEPORT set share its connections, and a program of classic BPF may say which of them
a new one goes to (Linux 4.6, SO_ATTACH_REUSEPORT_CBPF). Here it sends everybody to the socket that listens, and those
that are to be dropped to a decoy, whose queue is short and nearly always full: their SYN is not answered, and the
process that listens hears nothing of it.

Once in a while somebody looks into the queue (`DropSocket.queued`), and treats who is there as at the door. So a client
that knocks now and then is still counted and cut off, and one that should not have come here comes in; only a flood is
left outside.

What the kernel does, as the tests find it:

* Only whoever opened the first socket, by user, may add a second one: where privileges are given up, both have to be
  opened before. Replacing the program takes no privilege.
* The first socket has the option from here on, so another process of the same user could join the group. It would be
  sent nobody, because the program names nobody but the first two. A process that does not set the option cannot bind,
  as always.
* Accepted connections have nothing to do with any of this.
* A SYN for which the queue has no place counts as ListenOverflows in ``nstat``. Under a flood of SYNs alone, which
  never fills the queue, the kernel may turn to SYN cookies, and says so in its log once.
* While the decoy is opened, for some 100 µs, connections go to either of the two by chance.
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

__all__ = ["QUEUE_LENGTH", "DropSocket"]

QUEUE_LENGTH: Final = 16
"""How many wait in the queue at most."""

SO_ATTACH_REUSEPORT_CBPF: Final = 51
"""asm-generic/socket.h; the socket module does not have it."""
_FIRST, _DROP = 0, 1
"""Positions in the group, in the order of listening."""


class DropSocket:
    """The decoy beside one listening TCP socket. Call `close` before that one is closed."""

    def __init__(self, listening: socket.socket) -> None:
        """Open it; it draws nobody yet. Raises `OSError` where that cannot be done, and leaves no trace then."""
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "this system has no such sockets")
        if listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            raise OSError(errno.EBUSY, "others share the port")
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
            self.put(filter_program(()))
        except OSError:
            self.close()
            raise

    def put(self, program: Program) -> None:
        """Draw those whom `program` drops. Raises `OSError`."""
        attach_program(self._listening, SO_ATTACH_REUSEPORT_CBPF, program.verdicts(keep=_FIRST, drop=_DROP))

    def queued(self) -> Iterator[tuple[Socket, Address]]:
        """Accept who is in the queue, as many as it has room for. Raises `OSError` if the system cannot.

        The sockets are for whoever takes them to close.
        """
        for _ in range(QUEUE_LENGTH if self._sock.fileno() >= 0 else 0):
            try:
                yield self._sock.accept()
            except BlockingIOError:
                return

    def close(self) -> None:
        """Draw nobody any more."""
        self._sock.close()
        with contextlib.suppress(OSError):
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
