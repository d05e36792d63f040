"""Figures of several workers together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.workers.merging.figures import added, added_totals, is_number, is_total, merge_figures, weighted_mean


def test_numbers_are_added_up() -> None:
    """Each key keeps the place where it occurred first, and one that a worker lacks counts as 0."""
    assert list(added([{"a": 1, "b": 2}, {"c": 4, "a": 8}]).items()) == [("a", 9), ("b", 2), ("c", 4)]


def test_shared_figures_count_once() -> None:
    """A database that all workers use is not larger for it."""
    assert merge_figures([{"events": 7, "open": 1}, {"events": 9, "open": 1}], ["events"]) == {"events": 9, "open": 2}


def test_texts_and_truth() -> None:
    """The first text counts; something is true if it is true of all."""
    assert merge_figures([{"mood": "fine", "on": True}, {"mood": "bad", "on": False}]) == {"mood": "fine", "on": False}
    assert merge_figures([{"mixed": "none"}, {"mixed": 3}]) == {"mixed": "none"}
    assert not is_number(True)
    assert is_number(1.5)


@pytest.mark.parametrize(("name", "total"), [("a_total", True), ("a_total.b", True), ("a", False), ("total", False)])
def test_totals(name: str, total: bool) -> None:
    """A total is known by its name, and so are its parts."""
    assert is_total(name) is total


def test_totals_are_kept() -> None:
    """What counts since the start outlives its worker, and gauges do not."""
    found = added_totals({"sent_total": 2}, {"sent_total": 3, "sent_total.a": 1, "open": 5, "x_total": "text"})
    assert found == {"sent_total": 5, "sent_total.a": 1}


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 100)), min_size=1))
def test_a_weighted_mean_lies_between(values: list[tuple[float | None, float]]) -> None:
    """It is never outside of the values."""
    found, known = weighted_mean(values), [value for value, _ in values if value is not None]
    assert found is not None
    assert min(known) - 1e-9 <= found <= max(known) + 1e-9


def test_what_counts_in_a_mean() -> None:
    """Values without weight, and those that are not known, do not."""
    assert weighted_mean([(1.0, 1), (4.0, 2), (9.0, 0), (None, 5)]) == 3.0
    assert weighted_mean([(None, 1), (2.0, 0)]) is None
    assert weighted_mean([]) is None
