"""Merge what several workers see of their cluster: see `pyryrelay.cluster.operating.overview`. PURE.

A server is away if it is for any worker, and the lease of the host is as old as the oldest of its workers'. Times are
seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["merge_sights"]


def merge_sights(sights: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return what the relay sees; None if it is in no cluster, or no worker has answered yet."""
    known = [sight for sight in sights if sight is not None]
    if not known:
        return None
    listed = [sight for sight in known if sight["instances"] is not None]
    # A worker that was asked before is not asked again, and remembers an older list.
    newest = min(listed, key=lambda sight: float(sight["listed_s"]), default=known[0])
    is_leased = all(sight["lease_age_s"] is not None for sight in known)
    return {
        **newest,
        "here": [address for sight in known for address in sight["here"]],
        "members": max(sight["members"] for sight in known),
        "is_secret_shared": all(sight["is_secret_shared"] for sight in known),
        "lease_age_s": max(sight["lease_age_s"] for sight in known) if is_leased else None,
        "servers": [_worst(states) for states in zip(*(sight["servers"] for sight in known), strict=False)],
    }


def _worst(states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the state of a server as the worker sees it that has been without it for longest."""
    return max(states, key=lambda state: (bool(state["problem"]), state["away_s"]))
