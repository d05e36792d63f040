"""The sockets between the workers of one host, which their supervisor makes and keeps."""

from __future__ import annotations

import socket

from pyryrelay.workers.place import MeshEnds

__all__ = ["MeshSockets"]


class MeshSockets:
    """A receiving and a sending end for each of ``count`` workers. They stay the same when a worker is replaced."""

    def __init__(self, count: int) -> None:
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
        for pair in self._pairs:
            for end in pair:
                end.setblocking(False)

    def of(self, index: int) -> MeshEnds:
        """Return what the worker with an index has: it receives at its own end, and sends to all."""
        return MeshEnds(self._pairs[index][0], [sending for _, sending in self._pairs])

    def close(self) -> None:
        """Close all of them."""
        for pair in self._pairs:
            for end in pair:
                end.close()
