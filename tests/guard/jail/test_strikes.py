"""Counting in a sliding window: exact, bounded, and never to a client's disadvantage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.jail import strikes as strikes_module
from pyryrelay.guard.jail.strikes import Strikes

STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0, 4.0, 5.0, 10.0]), st.booleans()))


def test_the_strike_that_was_missing_completes() -> None:
    """Strikes are counted up to the needed number, and the next one begins a new count."""
    strikes = Strikes(3, 10.0, 10)
    assert [strikes.add(1, now) for now in (0.0, 5.0, 9.9, 9.9, 9.9, 9.9)] == [1, 2, 3] * 2


def test_a_strike_a_window_ago_does_not_count() -> None:
    """A strike exactly one window ago does not count."""
    strikes = Strikes(2, 10.0, 10)
    assert [strikes.add(1, now) for now in (0.0, 10.0, 20.5, 30.0)] == [1, 1, 1, 2]


def test_a_strike_may_count_as_several() -> None:
    """A strike may count as several, until its window is over or the number is complete."""
    strikes = Strikes(10, 10.0, 10)
    assert [strikes.add(1, now, weight) for now, weight in ((0.0, 6), (1.0, 1), (10.5, 6), (10.9, 2), (10.9, 6))] == [
        6,
        7,
        7,
        9,
        15,
    ]
    assert strikes.add(1, 10.9) == 1


def test_each_key_is_counted_for_itself() -> None:
    """Strikes of one key do not count for another."""
    strikes = Strikes(2, 10.0, 10)
    assert [strikes.add(key, 0.0) for key in range(5)] == [1] * 5
    assert len(strikes) == 5


@given(STEPS)
def test_every_strike_in_the_window_counts_and_no_other(steps: list[tuple[int, float, bool]]) -> None:
    """With sweeps at any time the count is that of all strikes in the window."""
    strikes = Strikes(3, 10.0, 10)
    history: dict[int, list[float]] = {}
    now = 0.0
    for key, step_s, swept in steps:
        now += step_s
        if swept:
            strikes.sweep(now)
        recent = [at for at in history.get(key, []) if now - at < 10.0]
        history[key] = [] if len(recent) == 2 else [*recent, now]
        assert strikes.add(key, now) == len(recent) + 1


def test_silent_keys_are_forgotten() -> None:
    """A key without strikes for two windows uses no memory."""
    strikes = Strikes(3, 10.0, 10)
    strikes.add(1, 0.0)
    for now in (0.0, 9.9):
        strikes.sweep(now)
    strikes.add(1, 9.9)
    for now in (10.0, 19.9):
        strikes.sweep(now)
        assert len(strikes) == 1
    strikes.sweep(20.0)
    assert len(strikes) == 0


def test_a_sweep_frees_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped keys are freed a slice at a time, across generations."""
    strikes = Strikes(3, 10.0, 100)
    for key in range(30):
        strikes.add(key, 0.0)
    strikes.sweep(0.0)
    strikes.add(99, 0.0)
    monkeypatch.setattr(strikes_module, "DISPOSE_SLICE", 20)
    sizes = []
    for now in (10.0, 20.0, 30.0):
        strikes.sweep(now)
        sizes.append(len(strikes))
    assert sizes == [11, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from([0.0, 0.1, 11.0]), st.booleans())), st.integers(2, 9))
def test_no_flood_takes_more_memory(steps: list[tuple[int, float, bool]], max_keys: int) -> None:
    """The number of remembered keys is bounded."""
    strikes = Strikes(4, 10.0, max_keys)
    now = 0.0
    for key, step_s, swept in steps:
        now += step_s
        if swept:
            strikes.sweep(now)
        strikes.add(key, now)
        assert len(strikes) <= max_keys


def test_keys_with_repeated_strikes_are_not_pushed_out() -> None:
    """Keys with one strike push out one another, and not a key with repeated strikes."""
    strikes = Strikes(20, 60.0, 100)
    outcomes = []
    for number in range(1_000):
        strikes.add(1_000 + number, 0.0)
        if number % 20 == 0:
            outcomes.append(strikes.add(1, 0.0))
        assert len(strikes) <= 100
    assert outcomes.index(20) == 19


def test_counting_changes_nothing() -> None:
    """The strikes of a key are counted, however old its generation is, as long as they matter."""
    strikes = Strikes(4, 10.0, 8)
    assert strikes.count(1, 0.0) == 0
    strikes.add(1, 0.0)
    strikes.add(1, 5.0)
    assert [strikes.count(1, now) for now in (5.0, 9.9, 10.0, 15.0)] == [2, 2, 1, 0]
    strikes.sweep(10.0)
    assert strikes.count(1, 10.0) == 1
    assert strikes.add(1, 10.0) == 2
