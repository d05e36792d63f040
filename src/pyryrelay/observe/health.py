"""`/healthz`: one JSON object for load balancers and people."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from pyryrelay import __version__
from pyryrelay.protocol import Page
from pyryrelay.pyry.registry import Registry

_FIELDS = (("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store"))


@dataclass(slots=True)
class Health:
    """Answers `/healthz`; ``now`` is a monotonic clock in seconds."""

    registry: Registry
    now: Callable[[], float]
    started_at: float
    draining: bool = False

    def page(self) -> Page:
        """200 while serving, 503 while shutting down; the keys keep their order (pyry-v1, "Endpoints")."""
        body = {
            "status": "draining" if self.draining else "ok",
            "version": __version__,
            "connected_binaries": self.registry.binaries,
            "connected_phones": self.registry.phone_count,
            "uptime_seconds": int(self.now() - self.started_at),
        }
        return Page(503 if self.draining else 200, _FIELDS, json.dumps(body, separators=(",", ":")).encode("ascii"))
