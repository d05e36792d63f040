"""When a rush begins and ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.wire.rush import LOOK_S, LULL, RUSH_PER_S, SAMPLE, Rush


def rush_after(*looks: tuple[int, float]) -> Rush:
    """What so many connections at these times lead to."""
    rush = Rush()
    for count, now in looks:
        rush.came(count, now)
    return rush


def test_it_begins_with_two_samples_in_a_row() -> None:
    """The first one may have taken for ever to come together."""
    fast_s = SAMPLE / RUSH_PER_S * 0.9
    assert not rush_after((SAMPLE, 0.0)).is_on
    assert not rush_after((SAMPLE, 0.0), (SAMPLE - 1, fast_s)).is_on
    assert rush_after((SAMPLE, 0.0), (SAMPLE, fast_s)).is_on
    assert rush_after((SAMPLE, 0.0), (SAMPLE - 1, 0.0), (1, fast_s)).is_on


def test_many_in_a_long_time_are_none() -> None:
    """It is their rate that counts."""
    slow_s = SAMPLE / RUSH_PER_S * 1.1
    assert not rush_after(*((SAMPLE, number * slow_s) for number in range(10))).is_on
    assert not rush_after(*((1, number / (RUSH_PER_S * 0.9)) for number in range(10 * SAMPLE))).is_on


def test_it_ends_with_a_look_that_finds_next_to_nobody() -> None:
    """And another one takes as much to begin."""
    rush = rush_after((SAMPLE, 0.0), (SAMPLE, 0.0))
    for number in range(1, 100):
        rush.came(LULL, number * LOOK_S)
        assert rush.is_on
    rush.came(LULL - 1, 0.1)
    assert not rush.is_on
    rush.came(SAMPLE, 1.0)
    assert not rush.is_on
    rush.came(SAMPLE, 1.0)
    assert rush.is_on


@given(st.lists(st.tuples(st.integers(0, 32), st.floats(0, 1)), max_size=200))
def test_nobody_is_left_behind(looks: list[tuple[int, float]]) -> None:
    """Whatever came before, a look that finds nobody ends it: who comes next is accepted at once."""
    rush, now = Rush(), 0.0
    for count, wait_s in looks:
        now += wait_s
        rush.came(count, now)
    rush.came(0, now)
    assert not rush.is_on
