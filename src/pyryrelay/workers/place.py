"""What a worker has from its supervisor: which one of how many it is, its sockets, and the connection between both."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyryrelay.listen.inherited import Inherited
from pyryrelay.workers.rpc import Rpc

__all__ = ["MeshEnds", "WorkerPlace"]


@dataclass(frozen=True, slots=True)
class MeshEnds:
    """The sockets (SOCK_SEQPACKET) between the workers of one host. They stay the same while the supervisor lives.

    What was sent to a worker that has died waits in the socket for the next one with its index.
    """

    receiving: socket.socket
    """Where this worker receives."""
    sending: Sequence[socket.socket]
    """Where it sends to each worker, by index, itself included."""

    def discard(self) -> None:
        """Receive what waits, and close the connections that come with it."""
        with contextlib.suppress(OSError):
            # The kernel closes descriptors for which a receiver has no room.
            while self.receiving.recv(1, socket.MSG_DONTWAIT):
                pass


@dataclass(slots=True)
class WorkerPlace:
    """The place of a worker. Handlers may be registered on ``rpc`` at once; it is connected when the reactor runs."""

    index: int
    """From 0 to ``count`` - 1. A worker that is started again has the same."""
    count: int
    boot: int
    """A number that is new at each start of a worker."""
    rpc: Rpc
    sockets: Inherited = field(default_factory=Inherited)
    """The listening sockets of this worker, by the text of the endpoint."""
    mesh: MeshEnds | None = None
    seed: int = 0
    """The secret that decides which worker accepts an address, and owns a key; see `Steering`."""
    children: Mapping[str, str] = field(default_factory=dict)
    """Addresses of the children that all workers share: the path of a UNIX socket by name."""
