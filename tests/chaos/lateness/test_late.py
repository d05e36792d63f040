"""Lateness is added up, cut, and read from what the kernel tells."""

from __future__ import annotations

import pytest
from tests.chaos.lateness.late import LEAST_S, Late, Meter, Span, spans, together_s, without


def test_lateness_at_once_counts_once() -> None:
    """Whichever place it is of; a gap is none, but may be passed over."""
    lates = [Late("b", 3.0, 4.0), Late("redis", 1.0, 2.0), Late("a", 1.5, 2.5), Late("a", 1.6, 1.7)]
    both = frozenset({"a", "redis"})
    assert spans(lates) == [Span(1.0, 2.5, 1.5, both), Span(3.0, 4.0, 1.0, frozenset({"b"}))]
    assert spans(lates, 0.5) == [Span(1.0, 4.0, 2.5, both | {"b"})]
    assert together_s(lates) == 2.5
    assert together_s([]) == 0.0


@pytest.mark.parametrize(
    ("known", "left"),
    [
        ([], [(1.0, 5.0)]),
        ([Late("", 2.0, 3.0)], [(1.0, 2.0), (3.0, 5.0)]),
        ([Late("", 0.0, 1.5), Late("", 1.5, 4.95)], []),
        ([Late("", 0.0, 9.0)], []),
        ([Late("", 0.0, 1.0), Late("", 5.0, 9.0)], [(1.0, 5.0)]),
        ([Late("", 4.0, 9.0), Late("", 2.0, 2.5)], [(1.0, 2.0), (2.5, 4.0)]),
    ],
)
def test_what_was_done_on_purpose_is_cut_out(known: list[Late], left: list[tuple[float, float]]) -> None:
    """Pieces that are too short to be noted are left out."""
    assert without(Late("a", 1.0, 5.0), known) == [Late("a", *times) for times in left]


def test_a_meter_notes_long_waits() -> None:
    """Not the first sum, which has all waits since the start of the process; nor short ones, however many there are."""
    meter = Meter("a")
    assert meter.next(10.0, 700.0) == []
    assert [meter.next(10.0 + tick, 700.0 + tick * 0.9 * LEAST_S) for tick in range(1, 20)] == [[]] * 19
    (late,) = meter.next(40.0, 702.0)
    assert (late.place, late.until) == ("a", 40.0)
    assert late.length_s == pytest.approx(2.0 - 19 * 0.9 * LEAST_S)
    assert meter.next(40.1, 702.0) == []
