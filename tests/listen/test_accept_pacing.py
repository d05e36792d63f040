"""When pacing begins and ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.listen.accept_pacing import PACED_PER_S, PACING_INTERVAL_S, QUIET_ACCEPTS, SAMPLE, AcceptPacing


def pacing_after(*polls: tuple[int, float]) -> AcceptPacing:
    """Return the pacing after polls that accepted so many connections at these times."""
    pacing = AcceptPacing()
    for count, now in polls:
        pacing.accepted(count, now)
    return pacing


def test_it_begins_with_two_samples_in_a_row() -> None:
    """The first sample alone says nothing about the rate, because it may have taken any time."""
    fast_s = SAMPLE / PACED_PER_S * 0.9
    assert not pacing_after((SAMPLE, 0.0)).is_on
    assert not pacing_after((SAMPLE, 0.0), (SAMPLE - 1, fast_s)).is_on
    assert pacing_after((SAMPLE, 0.0), (SAMPLE, fast_s)).is_on
    assert pacing_after((SAMPLE, 0.0), (SAMPLE - 1, 0.0), (1, fast_s)).is_on


def test_slow_arrivals_do_not_begin_it() -> None:
    """The rate of connections counts, not their number."""
    slow_s = SAMPLE / PACED_PER_S * 1.1
    assert not pacing_after(*((SAMPLE, number * slow_s) for number in range(10))).is_on
    assert not pacing_after(*((1, number / (PACED_PER_S * 0.9)) for number in range(10 * SAMPLE))).is_on


def test_it_ends_with_a_quiet_poll() -> None:
    """After a poll with fewer than `QUIET_ACCEPTS`, it takes two samples to begin again."""
    pacing = pacing_after((SAMPLE, 0.0), (SAMPLE, 0.0))
    for number in range(1, 100):
        pacing.accepted(QUIET_ACCEPTS, number * PACING_INTERVAL_S)
        assert pacing.is_on
    pacing.accepted(QUIET_ACCEPTS - 1, 0.1)
    assert not pacing.is_on
    pacing.accepted(SAMPLE, 1.0)
    assert not pacing.is_on
    pacing.accepted(SAMPLE, 1.0)
    assert pacing.is_on


@given(st.lists(st.tuples(st.integers(0, 32), st.floats(0, 1)), max_size=200))
def test_an_empty_poll_always_ends_it(polls: list[tuple[int, float]]) -> None:
    """After a poll that accepts nothing, the next connection is accepted at once, whatever came before."""
    pacing, now = AcceptPacing(), 0.0
    for count, wait_s in polls:
        now += wait_s
        pacing.accepted(count, now)
    pacing.accepted(0, now)
    assert not pacing.is_on
