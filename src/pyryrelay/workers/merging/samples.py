"""Merge the samples of several workers for the dashboard: those of `pyryrelay.admin.dashboard.samples`. PURE.

What has happened in a second is added up, and so are gauges. Of a delay, and of what all workers have in common, the
largest one counts. A worker that has sent no sample in this second counts with the gauges that it had last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pyryrelay.workers.merging.figures import added, is_total, weighted_mean
from pyryrelay.workers.merging.statuses import merge_protocols

__all__ = ["merge_samples", "resting"]


def resting(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample of a worker that tells nothing at the moment: with the gauges of before, and no events."""
    protocols = {
        name: {key: value for key, value in figures.items() if not is_total(key)}
        for name, figures in sample["protocols"].items()
    }
    nothing: dict[str, Any] = {"admitted": {}, "refused": {}, "messages": [0, 0], "bytes": [0, 0], "cpu": 0.0}
    nothing |= {"elapsed_s": 1.0, "lag_s": 0.0, "decision_s": None, "decided": 0}
    return {**sample, **nothing, "protocols": protocols}


def merge_samples(
    samples: Sequence[Mapping[str, Any]], at_s: float, state: str, shared: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Return the sample of the relay. ``at_s`` is the wall clock.

    Each sample has one more key, ``decided``: the number of decisions that ``decision_s`` is the mean of.
    """

    def total(key: str) -> Any:
        return sum(sample[key] for sample in samples)

    return {
        "at": round(at_s, 1),
        "elapsed_s": round(max((sample["elapsed_s"] for sample in samples), default=1.0), 3),
        "state": state,
        "connections": added(sample["connections"] for sample in samples),
        "handshakes": total("handshakes"),
        "admitted": added(sample["admitted"] for sample in samples),
        "refused": added(sample["refused"] for sample in samples),
        "messages": _pair([sample["messages"] for sample in samples]),
        "bytes": _pair([sample["bytes"] for sample in samples]),
        "tracked": total("tracked"),
        "jailed": max((sample["jailed"] for sample in samples), default=0),
        "memory_bytes": total("memory_bytes"),
        "cpu": round(total("cpu"), 4),
        "lag_s": max((sample["lag_s"] for sample in samples), default=0.0),
        "decision_s": weighted_mean((sample["decision_s"], sample.get("decided", 0)) for sample in samples),
        "protocols": merge_protocols([sample["protocols"] for sample in samples], shared),
    }


def _pair(pairs: Sequence[Sequence[int]]) -> list[int]:
    return [sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)]
