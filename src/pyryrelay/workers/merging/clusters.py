"""Merge what several workers see of their cluster: see `pyryrelay.cluster.operating.overview`. PURE.

A server is away if it is for any worker, and the lease of the host is as old as the oldest of its workers'. Times are
seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["merge_sights", "merge_summaries"]


def merge_summaries(summaries: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return the cluster in short; None if it is in no cluster, or no worker has answered yet.

    Each problem is told once, however many workers see it, with the longest time.
    """
    known = [summary for summary in summaries if summary is not None]
    if not known:
        return None
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for problem in (problem for summary in known for problem in summary["problems"]):
        key = problem["kind"], problem["name"]
        if key not in found or (problem["since_s"] or 0.0) > (found[key]["since_s"] or 0.0):
            found[key] = problem
    members = max(summary["members"] for summary in known)
    return {"name": known[0]["name"], "members": members, "problems": [dict(problem) for problem in found.values()]}


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
        "instances": _with_links(newest["instances"], listed),
        "servers": [_worst(states) for states in zip(*(sight["servers"] for sight in known), strict=False)],
    }


def _with_links(
    rows: Sequence[Mapping[str, Any]] | None, sights: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]] | None:
    """Return the instances; one that any worker cannot reach cannot be reached."""
    if rows is None:
        return None
    links = {row["address"]: row["link"] for sight in sights for row in sight["instances"] if row["link"] is not None}
    return [{**row, "link": row["link"] or links.get(row["address"])} for row in rows]


def _worst(states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the state of a server as the worker sees it that has been without it, or its sentinels, for longest."""
    return max(states, key=lambda state: (bool(state["problem"]), state["away_s"], _missing(state)))


def _missing(state: Mapping[str, Any]) -> int:
    return sum(bool(sentinel["problem"]) for sentinel in state["sentinels"])
