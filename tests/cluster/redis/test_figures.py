"""The counts of one server."""

from __future__ import annotations

from pyryrelay.cluster.redis.figures import BOUNDS_S, Figures


def test_answers_are_counted_by_their_time() -> None:
    """Each one is in the first bucket that it fits in, and those above all in the last."""
    figures = Figures()
    for took_s in (0.0, 0.0005, 0.0006, 9.0):
        figures.answered(took_s)
    assert figures.counts == [2, 1, *[0] * (len(BOUNDS_S) - 2), 1]
    assert figures.total_s == 9.0011
