"""Add up figures of several workers. PURE.

A figure is a number or a text (`pyryrelay.protocol.Figure`). Numbers are added up; of those that all workers have in
common, such as the size of a database, and of times, the largest counts. Of texts, the first one does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["added", "added_totals", "is_number", "is_total", "merge_figures", "weighted_mean"]


def is_number(value: object) -> bool:
    """Return whether a value can be added up. In Python a boolean is a number, but not here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_total(name: str) -> bool:
    """Return whether a figure counts since the start; see `pyryrelay.protocol.RunningProtocol.figures`."""
    return name.partition(".")[0].endswith("_total")


def added(mappings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum under each key, in the order in which keys first occur."""
    return merge_figures(mappings)


def merge_figures(mappings: Iterable[Mapping[str, Any]], shared: Collection[str] = ()) -> dict[str, Any]:
    """Return each figure of all workers together. Of those that are ``shared`` the largest counts."""
    found: dict[str, Any] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            if name not in found:
                found[name] = value
            elif is_number(value) and is_number(found[name]):
                found[name] = max(found[name], value) if name in shared else found[name] + value
            elif isinstance(value, bool) and isinstance(found[name], bool):
                found[name] = found[name] and value
    return found


def added_totals(before: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``before`` with the totals of ``more`` added; its other figures are left out."""
    return merge_figures([before, {name: value for name, value in more.items() if is_total(name) and is_number(value)}])


def weighted_mean(values: Iterable[tuple[float | None, float]]) -> float | None:
    """Return the mean of values that count by their weights; None if nothing has weight."""
    known = [(value, weight) for value, weight in values if value is not None and weight > 0]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
