"""What one server was asked, and how it answered. Times are seconds."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BOUNDS_S", "Figures"]

BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)


@dataclass(slots=True)
class Figures:
    """Counts since the start. ``counts`` has a place for each of `BOUNDS_S`, and one for all above."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0
    outages: int = 0
    refused: int = 0
    """Calls that failed at once, because the server was down."""
    skew_s: float = 0.0
    """How far the server's clock is ahead of this machine's."""

    def answered(self, took_s: float) -> None:
        """Count an answer."""
        self.counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.total_s += took_s
