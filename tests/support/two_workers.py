"""Two workers in one process: one accepts every connection, and the other one owns every key."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.support.harness import FakeSession, World
from tests.support.listening import LOCALHOST, Place

from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.placement import Placement
from pyryrelay.protocol import Message
from pyryrelay.workers.mesh.handing_over import HandingOver
from pyryrelay.workers.mesh.mesh import Mesh
from pyryrelay.workers.mesh.sockets import MeshSockets
from pyryrelay.workers.place import MeshEnds
from pyryrelay.workers.steering import owner_of

ACCEPTOR, OWNER = 0, 1
OWNERS_KEY = next(key for key in map(str, range(100)) if owner_of(key, 2) == OWNER)
ACCEPTORS_KEY = next(key for key in map(str, range(100)) if owner_of(key, 2) == ACCEPTOR)


def mesh_ends(count: int) -> list[MeshEnds]:
    """Return the sockets between so many workers, as a supervisor makes them."""
    sockets = MeshSockets(count)
    return [sockets.of(index) for index in range(count)]


def echo(session: FakeSession, batch: Sequence[Message]) -> None:
    """Send everything back."""
    for payload, is_binary in batch:
        session.peer.send([payload], binary=is_binary)


def open_sockets() -> int:
    """Return how many descriptors of this process are sockets."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


class TwoWorkers:
    """The worlds of both, with the sockets between them. ``world`` makes each."""

    def __init__(self, reactor: Any, **world: Any) -> None:
        self.acceptor, self.owner = self.worlds = World(**world), World(**world)
        self.ends = mesh_ends(2)
        self.parts = [self._part(reactor, index) for index in (ACCEPTOR, OWNER)]
        self.acceptor.application.key_of = self.owner.application.key_of = lambda request: OWNERS_KEY
        self.place_by(self.parts[ACCEPTOR].placement)

    def _part(self, reactor: Any, index: int) -> HandingOver:
        world, mesh = self.worlds[index], Mesh(reactor, self.ends[index])
        part = HandingOver(reactor, mesh, index, 2, 100 + index, world.wheel, world.clock.seconds)
        part.serve(world.http_factory)
        part.start()
        return part

    def place_by(self, placement: Placement) -> None:
        """Have the acceptor ask a placement."""
        world = self.acceptor
        world.context = replace(world.context, placement=placement)
        world.http_factory = HttpFactory(world.context)

    def restarted(self, reactor: Any, index: int) -> HandingOver:
        """Put another process in the place of a worker, whose world stays."""
        self.parts[index].mesh.stop()
        part = self._part(reactor, index)
        part._boot = 200 + index
        self.parts[index] = part
        return part

    def accepting(self, reactor: Any) -> Place:
        """Return the place where the acceptor listens."""
        return Place(reactor, self.acceptor, has_acceptor=True, interface=LOCALHOST)

    def close(self) -> None:
        """Check that nothing is left, and close the sockets."""
        for part in self.parts:
            assert len(part.leases) == 0
            part.stop()
            assert not part.splices
        for world in self.worlds:
            world.assert_empty()
        for ends in self.ends:
            for sock in (ends.receiving, *ends.sending):
                with contextlib.suppress(OSError):
                    sock.close()
