"""Merge what several workers say about their health into the pages ``/healthz`` and ``/readyz``. PURE.

Numbers, such as those of connected peers, are added up. One worker that serves is enough: the kernel keeps connections
for a worker that is started again, and load balancers must not leave a host because one of its workers died.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pyryrelay.observe.readiness import READY, readiness
from pyryrelay.workers.merging.figures import merge_figures

__all__ = ["DEGRADED", "Answer", "merge_health", "merge_readiness"]


class Answer(NamedTuple):
    """An HTTP status, and the object of the body."""

    status: int
    body: dict[str, Any]


def merge_health(
    workers: Sequence[Mapping[str, Any]],
    *,
    count: int,
    version: str,
    uptime_s: float,
    is_draining: bool = False,
    shared: Collection[str] = (),
) -> Answer:
    """Merge the objects of ``/healthz`` of the workers that are ready, of ``count`` in all.

    The keys keep the order of one worker's page, see `pyryrelay.observe.health.Health.page`. ``shared`` has the keys
    that all workers have in common.
    """
    healthy = [worker for worker in workers if worker.get("status") == "ok"]
    status = "draining" if is_draining else "ok" if healthy else "failing"
    parts = merge_figures(
        ({key: value for key, value in worker.items() if key not in _OF_PROCESS} for worker in workers), shared
    )
    body = {"status": status, "version": version, **parts, "uptime_seconds": int(uptime_s)}
    return Answer(200 if status == "ok" else 503, body | {"workers": count, "workers_ready": len(healthy)})


DEGRADED: Final = "degraded"
"""What a worker adds to its object: whether it serves without something that is away. It is not part of the page."""
_OF_PROCESS = frozenset({"status", "version", "uptime_seconds", DEGRADED})


def merge_readiness(
    ready: int, *, count: int, version: str, is_draining: bool = False, is_degraded: bool = False
) -> Answer:
    """Return whether new connections should come to this host: as long as a worker is ready."""
    status = readiness(ready > 0, is_draining, is_degraded)
    body = {"status": status, "version": version, "workers": count, "workers_ready": ready}
    return Answer(200 if status in READY else 503, body)
