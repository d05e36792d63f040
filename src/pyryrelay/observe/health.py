"""The page `/healthz`: one JSON object for load balancers and people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyryrelay import __version__
from pyryrelay.protocol import Page

_FIELDS = (("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store"))


@dataclass(slots=True)
class Health:
    """Answers `/healthz`. ``now`` is a monotonic clock in seconds.

    ``parts`` return the keys of the protocols, and ``is_healthy`` whether all of them can serve.
    """

    now: Callable[[], float]
    started_at: float
    parts: list[Callable[[], Mapping[str, object]]] = field(default_factory=list)
    is_healthy: Callable[[], bool] = lambda: True
    draining: bool = False

    def drain(self) -> None:
        """Answer 503 from now on, so that load balancers choose another server."""
        self.draining = True

    def page(self) -> Page:
        """Return 200 while serving, 503 while shutting down or while a protocol cannot serve.

        The keys keep their order (pyry-v1, "Endpoints").
        """
        status = "draining" if self.draining else "ok" if self.is_healthy() else "failing"
        body: dict[str, object] = {"status": status, "version": __version__}
        for part in self.parts:
            body |= part()
        body["uptime_seconds"] = int(self.now() - self.started_at)
        return Page(200 if status == "ok" else 503, _FIELDS, json.dumps(body, separators=(",", ":")).encode("ascii"))
