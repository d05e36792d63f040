"""Merge the objects of ``GET /status`` of several workers into that of the relay. PURE.

Counts are added up, and of what all workers have in common or of a delay, the largest one counts. Times are seconds,
sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyryrelay.workers.merging.clusters import merge_summaries
from pyryrelay.workers.merging.figures import added, added_totals, merge_figures, weighted_mean

__all__ = ["Gone", "Own", "merge_per_address", "merge_protocols", "merge_status"]

_COUNTED = ("admitted", "refused", "messages", "bytes")
"""Mappings of what is counted since the start."""


@dataclass(slots=True)
class Gone:
    """What workers that have ended had counted, so that a sum over all workers does not fall when one of them dies."""

    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    cpu_s: float = 0.0

    def add(self, last: Mapping[str, Any]) -> None:
        """Keep what a worker had counted, from the last object that it has sent: that of a status or of a sample."""
        for key in _COUNTED:
            self.counts[key] = added([self.counts.get(key, {}), last.get(key, {})])
        for name, figures in last.get("protocols", {}).items():
            self.protocols[name] = added_totals(self.protocols.get(name, {}), figures)
        self.cpu_s += last.get("cpu_s", 0.0)


@dataclass(frozen=True, slots=True)
class Own:
    """What the supervisor knows without its workers. ``limits`` and ``certificates`` are as in ``GET /status``."""

    version: str
    pid: int
    state: str
    uptime_s: float
    memory_bytes: int
    cpu_s: float
    limits: Mapping[str, str]
    certificates: Sequence[Mapping[str, Any]] = ()
    jailed: int = 0


def merge_status(
    own: Own,
    workers: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    gone: Gone,
    shared: Mapping[str, Collection[str]],
) -> dict[str, Any]:
    """Return the object of the relay: that of one process, and the ``rows`` about its workers at the end.

    ``workers`` are the objects of those that have answered; each has one more key, ``decided``: the number of
    decisions that ``decision_s`` is the mean of. ``shared`` has the figures of each protocol that all workers have in
    common.
    """

    def each(key: str, default: Any) -> list[Any]:
        return [worker.get(key, default) for worker in workers]

    counts = {key: added([*each(key, {}), gone.counts.get(key, {})]) for key in _COUNTED}
    cluster = merge_summaries(each("cluster", None))
    decision_s = weighted_mean((worker.get("decision_s"), worker.get("decided", 0)) for worker in workers)
    return {
        "version": own.version,
        "pid": own.pid,
        "state": own.state,
        "uptime_s": round(own.uptime_s, 3),
        "connections": added(each("connections", {})),
        "handshakes": sum(each("handshakes", 0)),
        **{key: counts[key] for key in ("admitted", "refused")},
        **{key: {"in": 0, "out": 0} | counts[key] for key in ("messages", "bytes")},
        "tracked": sum(each("tracked", 0)),
        # Every worker has all sentences.
        "jailed": max([own.jailed, *each("jailed", 0)]),
        "memory_bytes": own.memory_bytes + sum(each("memory_bytes", 0)),
        "cpu_s": round(own.cpu_s + gone.cpu_s + sum(each("cpu_s", 0.0)), 3),
        "reactor_lag_s": max(each("reactor_lag_s", 0.0), default=0.0),
        "decision_s": decision_s,
        "connections_per_address": merge_per_address(each("connections_per_address", [])),
        "certificates": _certificates([own.certificates, *each("certificates", [])]),
        **({} if cluster is None else {"cluster": cluster}),
        "limits": dict(own.limits),
        "protocols": merge_protocols([*each("protocols", {}), gone.protocols], shared),
        "workers": [dict(row) for row in rows],
    }


def merge_protocols(
    workers: Iterable[Mapping[str, Mapping[str, Any]]], shared: Mapping[str, Collection[str]]
) -> dict[str, dict[str, Any]]:
    """Return the figures of each protocol of all workers together."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for worker in workers:
        for name, figures in worker.items():
            by_name.setdefault(name, []).append(figures)
    return {name: merge_figures(found, shared.get(name, ())) for name, found in by_name.items()}


def merge_per_address(workers: Iterable[Sequence[Sequence[Any]]]) -> list[list[Any]]:
    """Add up how many addresses have up to so many connections. An address has all of them at one worker."""
    found: dict[Any, int] = {}
    for pairs in workers:
        for most, addresses in pairs:
            found[most] = found.get(most, 0) + addresses
    return [[most, addresses] for most, addresses in found.items()]


def _certificates(workers: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return each certificate once, however many workers have it; while it changes, the one that expires later."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for certificates in workers:
        for one in certificates:
            key = (*one["names"], one["source"])
            if key not in found or one["expires_at"] > found[key]["expires_at"]:
                found[key] = dict(one)
    return list(found.values())
