"""The pages `/healthz` and `/readyz`: one JSON object each, for load balancers and people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyryrelay import __version__
from pyryrelay.observe.readiness import READY, readiness
from pyryrelay.protocol import Page

_FIELDS = (("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store"))


@dataclass(slots=True)
class Health:
    """Answers `/healthz`. ``now`` is a monotonic clock in seconds.

    ``parts`` return the keys of the protocols, and ``is_healthy`` whether all of them can serve. ``is_degraded`` tells
    whether something is away without which this process serves all the same, such as a server of its cluster.
    """

    now: Callable[[], float]
    started_at: float
    parts: list[Callable[[], Mapping[str, object]]] = field(default_factory=list)
    is_healthy: Callable[[], bool] = lambda: True
    is_degraded: Callable[[], bool] = lambda: False
    draining: bool = False
    is_accepting: bool = False
    """Whether this process accepts connections. A process that succeeds another one starts without."""

    def drain(self) -> None:
        """Answer 503 from now on, so that load balancers choose another server."""
        self.draining = True

    def undrain(self) -> None:
        """Answer as before `drain`."""
        self.draining = False

    def ready_page(self) -> Page:
        """Return 200 if new connections should come to this process, 503 if it drains or has not started."""
        status = readiness(self.is_accepting, self.draining, self.is_degraded())
        return json_page(200 if status in READY else 503, {"status": status, "version": __version__})

    def page(self) -> Page:
        """Return 200 while serving, 503 while shutting down or while a protocol cannot serve.

        The keys keep their order (pyry-v1, "Endpoints").
        """
        body = self.object()
        return json_page(200 if body["status"] == "ok" else 503, body)

    def object(self) -> dict[str, object]:
        """Return the object of `page`."""
        status = "draining" if self.draining else "ok" if self.is_healthy() else "failing"
        body: dict[str, object] = {"status": status, "version": __version__}
        for part in self.parts:
            body |= part()
        body["uptime_seconds"] = int(self.now() - self.started_at)
        return body


def json_page(status: int, body: Mapping[str, object]) -> Page:
    """Return a page of health: one JSON object that nobody may keep."""
    return Page(status, _FIELDS, json.dumps(body, separators=(",", ":")).encode("ascii"))
