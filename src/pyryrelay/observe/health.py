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
    """Answers `/healthz`. ``now`` is a monotonic clock in seconds; ``parts`` return the keys of the protocols."""

    now: Callable[[], float]
    started_at: float
    parts: list[Callable[[], Mapping[str, object]]] = field(default_factory=list)
    draining: bool = False

    def drain(self) -> None:
        """Answer 503 from now on, so that load balancers choose another server."""
        self.draining = True

    def page(self) -> Page:
        """Return 200 while serving, 503 while shutting down; the keys keep their order (pyry-v1, "Endpoints")."""
        body: dict[str, object] = {"status": "draining" if self.draining else "ok", "version": __version__}
        for part in self.parts:
            body |= part()
        body["uptime_seconds"] = int(self.now() - self.started_at)
        return Page(503 if self.draining else 200, _FIELDS, json.dumps(body, separators=(",", ":")).encode("ascii"))
