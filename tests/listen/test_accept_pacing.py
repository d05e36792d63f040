"""When a rush begins and ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.listen.accept_pacing import LOOK_S, PACED_PER_S, QUIET_ACCEPTS, SAMPLE, AcceptPacing


def rush_after(*looks: tuple[int, float]) -> AcceptPacing:
    """What so many connections at these times lead to."""
    pacing = AcceptPacing()
    for count, now in looks:
        pacing.came(count, now)
    return pacing


def test_it_begins_with_two_samples_in_a_row() -> None:
    """The first one may have taken for ever to come together."""
    fast_s = SAMPLE / PACED_PER_S * 0.9
    assert not rush_after((SAMPLE, 0.0)).is_on
    assert not rush_after((SAMPLE, 0.0), (SAMPLE - 1, fast_s)).is_on
    assert rush_after((SAMPLE, 0.0), (SAMPLE, fast_s)).is_on
    assert rush_after((SAMPLE, 0.0), (SAMPLE - 1, 0.0), (1, fast_s)).is_on


def test_many_in_a_long_time_are_none() -> None:
    """It is their rate that counts."""
    slow_s = SAMPLE / PACED_PER_S * 1.1
    assert not rush_after(*((SAMPLE, number * slow_s) for number in range(10))).is_on
    assert not rush_after(*((1, number / (PACED_PER_S * 0.9)) for number in range(10 * SAMPLE))).is_on


def test_it_ends_with_a_look_that_finds_next_to_nobody() -> None:
    """And another one takes as much to begin."""
    pacing = rush_after((SAMPLE, 0.0), (SAMPLE, 0.0))
    for number in range(1, 100):
        pacing.came(QUIET_ACCEPTS, number * LOOK_S)
        assert pacing.is_on
    pacing.came(QUIET_ACCEPTS - 1, 0.1)
    assert not pacing.is_on
    pacing.came(SAMPLE, 1.0)
    assert not pacing.is_on
    pacing.came(SAMPLE, 1.0)
    assert pacing.is_on


@given(st.lists(st.tuples(st.integers(0, 32), st.floats(0, 1)), max_size=200))
def test_nobody_is_left_behind(looks: list[tuple[int, float]]) -> None:
    """Whatever came before, a look that finds nobody ends it: who comes next is accepted at once."""
    pacing, now = AcceptPacing(), 0.0
    for count, wait_s in looks:
        now += wait_s
        pacing.came(count, now)
    pacing.came(0, now)
    assert not pacing.is_on
