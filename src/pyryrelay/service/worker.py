"""What a relay is to the other workers of its host, and has from their supervisor. Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client.registry import Collector

from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.placement import Placement
from pyryrelay.listen.listeners import Listeners
from pyryrelay.listen.sockets import Address, Socket
from pyryrelay.mounts import MountedSettings
from pyryrelay.protocol import Child
from pyryrelay.runtime.child_process import start_child
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.workers.admin.hand_overs import HandOverCollector, PassingCollector
from pyryrelay.workers.mesh.handing_over import WORKER_LOST, HandingOver
from pyryrelay.workers.mesh.mesh import Mesh
from pyryrelay.workers.place import MeshEnds, WorkerPlace
from pyryrelay.workers.shared_child import connect
from pyryrelay.workers.sockets.passing import ACCEPTED, Passing, handler_of
from pyryrelay.workers.sockets.worker_sockets import steering_of

__all__ = ["WorkerPart"]


class WorkerPart:
    """What this process is to the other workers; nothing without a ``place``, or with one that has no mesh.

    ``settings`` returns those in force.
    """

    def __init__(
        self,
        place: WorkerPlace | None,
        settings: Callable[[], MountedSettings],
        reactor: Any,
        wheel: TimerWheel,
        now: Callable[[], float],
    ) -> None:
        self._place = place
        self._settings = settings
        self._reactor = reactor
        self._mesh: Mesh | None = None
        self._passing: Passing | None = None
        self._handing_over: HandingOver | None = None
        self.index, self.count = (0, 1) if place is None else (place.index, place.count)
        if place is not None and place.mesh is not None:
            self._join(place, place.mesh, wheel, now)

    def _join(self, place: WorkerPlace, ends: MeshEnds, wheel: TimerWheel, now: Callable[[], float]) -> None:
        self._mesh = mesh = Mesh(self._reactor, ends)
        self._passing = Passing(place.index, lambda: steering_of(self._settings(), place.seed), mesh.send_object)
        self._handing_over = handing_over = HandingOver(
            self._reactor, mesh, place.index, place.count, place.boot, wheel, now
        )
        handing_over.placement.seed = place.seed
        place.rpc.on(WORKER_LOST, lambda body: handing_over.worker_lost(body["index"]))

    @property
    def placement(self) -> Placement | None:
        """What the public listeners ask; None if there are no other workers."""
        return None if self._handing_over is None else self._handing_over.placement

    @property
    def splices(self) -> int:
        """How many connections there are whose bytes are passed on to other workers, because they cannot be moved."""
        return 0 if self._handing_over is None else len(self._handing_over.splices)

    def is_passed(self, endpoint: str, sock: Socket, peer: Address) -> bool:
        """Give a connection to the worker that it belongs to; return whether it is another one."""
        return self._passing is not None and self._passing.is_passed(endpoint, sock, peer)

    def accept_passed(self, listeners: Listeners) -> None:
        """Treat connections that other workers pass on as accepted by these listeners."""
        if self._mesh is not None:
            self._mesh.on_object(ACCEPTED, handler_of(listeners.receive))

    def listen(self, factory: Callable[[], HttpFactory], others: Placement | None) -> None:
        """Build connections that other workers hand over by a new ``factory``, from `start` on.

        ``others`` is asked about the keys that are this worker's own, because other hosts may serve them.
        """
        if self._handing_over is not None:
            self._handing_over.serve(factory())
            if others is not None:
                self._handing_over.ask_about_own_keys(others)

    def start(self) -> None:
        """Receive what other workers hand over."""
        if self._handing_over is not None:
            self._handing_over.start()

    def stop(self) -> None:
        """Cut off what is passed on, and receive no more."""
        if self._handing_over is not None:
            self._handing_over.stop()

    def start_shared(self, name: str, received: Callable[[bytes], None], ended: Callable[[str], None]) -> Child:
        """See `pyryrelay.protocol.SharedStarter`."""
        if self._place is not None:
            return connect(self._reactor, self._place.children[name], received, ended)
        return start_child(self._reactor, self._settings().shared_children()[name], received, ended)

    def collectors(self) -> list[Collector]:
        """Return what `/metrics` shows of it."""
        if self._handing_over is None or (passing := self._passing) is None:
            return []
        return [HandOverCollector(self._handing_over), PassingCollector(lambda: passing.lost)]
