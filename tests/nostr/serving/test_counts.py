"""Totals for the metrics."""

from __future__ import annotations

from pyryrelay.nostr.messages import VERBS
from pyryrelay.nostr.policies.refusal import EVENT_WORDS
from pyryrelay.nostr.serving.counts import Counts, Histogram


def test_every_word_is_there_from_the_start() -> None:
    """A label exists before its first event."""
    counts = Counts()
    assert set(counts.received) == set(VERBS)
    assert set(counts.events) >= {*EVENT_WORDS, "stored", "ephemeral"}
    assert not any(counts.events.values())


def test_relays_do_not_share_totals() -> None:
    """Each relay counts for itself."""
    one, other = Counts(), Counts()
    one.events["stored"] += 1
    one.write_s.observe(1)
    assert other.events["stored"] == 0
    assert other.write_s.total == 0


def test_a_value_counts_at_the_first_bound_that_is_not_below_it() -> None:
    """A bound is part of its bucket; values above all bounds have one of their own."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 8
