"""The words of ``/readyz``. PURE."""

from __future__ import annotations

from typing import Final

__all__ = ["READY", "readiness"]

READY: Final = frozenset({"ready", "degraded"})
"""The words with which new connections should come."""


def readiness(is_ready: bool, is_draining: bool, is_degraded: bool) -> str:
    """Return the word for what new connections have to expect."""
    if is_draining or not is_ready:
        return "draining" if is_draining else "starting"
    return "degraded" if is_degraded else "ready"
