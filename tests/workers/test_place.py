"""What a worker has from its supervisor."""

from __future__ import annotations

from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.rpc import Rpc


def test_a_place_needs_no_sockets() -> None:
    """A place without sockets, mesh and shared children is that of a relay whose parts are tested alone."""
    place = WorkerPlace(index=1, count=2, boot=7, rpc=Rpc())
    assert (place.sockets.endpoints, place.mesh, dict(place.children)) == (frozenset(), None, {})
