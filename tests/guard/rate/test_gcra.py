"""GCRA against a token bucket that is written in the slow and obvious way."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.rate.gcra import RESOLUTION_S, charge, decide, tokens_left, wait_s
from pyryrelay.guard.rate.quota import Quota

DEFAULT = Quota.parse("10/minute burst 20")
QUOTAS = st.builds(Quota, st.integers(1, 1_000), st.sampled_from([1.0, 7.0, 60.0, 3_600.0]), st.integers(1, 1_000))
STARTS = st.floats(0.0, 1e7)


class ExactBucket:
    """A bucket of `burst` tokens that gains exactly one per emission interval."""

    def __init__(self, quota: Quota, now: float) -> None:
        self.rate = Fraction(quota.count) / Fraction(quota.period_s)
        self.burst = Fraction(quota.burst)
        self.tokens = self.burst
        self.at = Fraction(now)

    def drip(self, now: float) -> Fraction:
        """Return the tokens in the bucket at `now`."""
        self.tokens = min(self.burst, self.tokens + (Fraction(now) - self.at) * self.rate)
        self.at = Fraction(now)
        return self.tokens

    def take(self, cost: int) -> None:
        """Remove tokens."""
        self.tokens -= cost


def test_burst_at_once_then_one_each_emission_interval() -> None:
    """Ten a minute with a burst of 20 admits 20 at once and then one each 6 s."""
    tat: float | None = None
    for number in range(20):
        decision = decide(DEFAULT, tat, 1_000.0)
        assert decision == (True, 1_006.0 + 6.0 * number, 0.0)
        tat = decision.tat
    refused = decide(DEFAULT, tat, 1_000.0)
    assert refused == (False, tat, 6.0)
    assert not decide(DEFAULT, tat, 1_005.9).allowed
    assert decide(DEFAULT, tat, 1_006.0).allowed


def test_a_full_bucket_is_the_same_as_no_bucket() -> None:
    """A tat that is not in the future is the same as no tat."""
    for tat in (0.0, 999.0, 1_000.0):
        assert decide(DEFAULT, tat, 1_000.0, 3) == decide(DEFAULT, None, 1_000.0, 3)


def test_a_request_beyond_the_burst_never_fits() -> None:
    """A cost above the burst is always refused, and spends nothing."""
    assert decide(DEFAULT, None, 50.0, 21) == (False, 50.0, inf)
    assert decide(DEFAULT, 110.0, 50.0, 21) == (False, 110.0, inf)


def test_several_tokens_are_taken_together_or_not_at_all() -> None:
    """A request for more tokens than are left is refused until there are enough, and takes none."""
    spent = decide(DEFAULT, None, 0.0, 15)
    assert spent == (True, 90.0, 0.0)
    assert decide(DEFAULT, spent.tat, 0.0, 6) == (False, 90.0, 6.0)
    assert decide(DEFAULT, spent.tat, 0.0, 5).allowed


@pytest.mark.parametrize("cost", [0, -1])
def test_a_cost_below_one_is_an_error(cost: int) -> None:
    """A cost below one is an error."""
    with pytest.raises(GuardError, match=repr(cost)):
        decide(DEFAULT, None, 0.0, cost)


@given(quota=QUOTAS, start=STARTS)
def test_rounding_never_refuses_a_token_of_the_burst(quota: Quota, start: float) -> None:
    """At any time exactly the burst is admitted at one instant."""
    tat: float | None = None
    for _ in range(quota.burst):
        decision = decide(quota, tat, start)
        assert decision.allowed
        tat = decision.tat
    assert not decide(quota, tat, start).allowed


@given(
    quota=QUOTAS,
    start=STARTS,
    steps=st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(1, 5)), max_size=60),
)
def test_decides_like_an_exact_bucket(quota: Quota, start: float, steps: list[tuple[float, int]]) -> None:
    """At any forward steps of the clock the decision is that of the exact bucket, within the resolution."""
    exact = ExactBucket(quota, start)
    margin = 2 * Fraction(RESOLUTION_S) * exact.rate
    tat, now = None, start
    for step_s, cost in steps:
        now += step_s
        tokens = exact.drip(now)
        decision = decide(quota, tat, now, cost)
        if decision.allowed:
            assert cost <= tokens + margin
            tat = decision.tat
            exact.take(cost)
        else:
            assert cost > tokens - margin


@given(
    quota=QUOTAS,
    start=STARTS,
    steps_s=st.lists(st.one_of(st.just(0.0), st.floats(0.0, 10.0)), min_size=1, max_size=80),
)
def test_never_more_than_burst_plus_rate_in_any_window(quota: Quota, start: float, steps_s: list[float]) -> None:
    """In any window at most the burst and the tokens that come back are admitted."""
    tat, now = None, start
    admitted: list[float] = []
    for step_s in steps_s:
        now += step_s
        decision = decide(quota, tat, now)
        if decision.allowed:
            tat = decision.tat
            admitted.append(now)
    rate = Fraction(quota.count) / Fraction(quota.period_s)
    for first, since in enumerate(admitted):
        for last, until in enumerate(admitted[first:], first):
            window = Fraction(until) - Fraction(since) + 2 * Fraction(RESOLUTION_S)
            assert last - first + 1 <= quota.burst + rate * window


@given(quota=QUOTAS, debt=st.floats(0.0, 1.0), start=STARTS, cost=st.integers(1, 1_000))
def test_waiting_exactly_retry_after_is_enough_and_less_is_not(
    quota: Quota, debt: float, start: float, cost: int
) -> None:
    """A refused client that waits as long as it is told is admitted, and one that comes earlier is not."""
    tat = start + debt * quota.full_after_s
    decision = decide(quota, tat, start, cost)
    if decision.allowed or cost > quota.burst:
        return
    assert decision.tat == tat
    assert decision.retry_after_s > 0.0
    assert decide(quota, tat, start + decision.retry_after_s, cost).allowed
    early_s = decision.retry_after_s - 3 * RESOLUTION_S
    assert early_s < 0.0 or not decide(quota, tat, start + early_s, cost).allowed


@given(quota=QUOTAS, start=STARTS)
def test_a_refusal_is_followed_by_one_token_per_interval(quota: Quota, start: float) -> None:
    """A client that always waits as long as it is told gets one token each emission interval."""
    tat, now = decide(quota, None, start, quota.burst).tat, start
    for _ in range(20):
        refused = decide(quota, tat, now)
        assert not refused.allowed
        assert refused.retry_after_s == pytest.approx(quota.emission_interval_s, abs=2 * RESOLUTION_S)
        now += refused.retry_after_s
        tat = decide(quota, tat, now).tat


def test_a_cost_that_fits_exactly() -> None:
    """An excess within the resolution fits, and the next larger one does not.

    This holds for all three functions; the sums of the numbers are exact.
    """
    quota = Quota(1_000_000, 1.0, 1)
    assert quota.emission_interval_s == quota.full_after_s == RESOLUTION_S
    assert decide(quota, RESOLUTION_S, 0.0).allowed
    assert wait_s(quota, RESOLUTION_S, 0.0) == 0.0
    assert charge(quota, RESOLUTION_S, 0.0, 1) == (2 * RESOLUTION_S, 0.0)
    over = nextafter(RESOLUTION_S, inf)
    excess_s = over + RESOLUTION_S - RESOLUTION_S
    assert excess_s > RESOLUTION_S
    assert decide(quota, over, 0.0).retry_after_s == wait_s(quota, over, 0.0) == excess_s
    assert charge(quota, over, 0.0, 1) == (over + RESOLUTION_S, excess_s)


def test_a_charge_takes_what_is_not_there() -> None:
    """Beyond the burst a charge makes a debt, which is paid at the steady rate; a charge of 0 reads it."""
    tat, debt_s = charge(DEFAULT, 0.0, 1_000.0, 20)
    assert (tat, debt_s) == (1_120.0, 0.0)
    tat, debt_s = charge(DEFAULT, tat, 1_000.0, 3)
    assert (tat, debt_s) == (1_138.0, 18.0)
    assert charge(DEFAULT, tat, 1_010.0, 0) == (tat, 8.0)
    assert charge(DEFAULT, tat, 1_018.0, 0) == (tat, 0.0)
    assert charge(DEFAULT, tat, 2_000.0, 1) == (2_006.0, 0.0)


@given(quota=QUOTAS, start=STARTS, steps=st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(0, 2_000)), max_size=40))
def test_a_charge_is_a_decision_that_cannot_be_refused(
    quota: Quota, start: float, steps: list[tuple[float, int]]
) -> None:
    """A charge has a debt exactly if the same request would be refused, and the debt is its wait."""
    tat, now = start, start
    for step_s, cost in steps:
        now += step_s
        decision = decide(quota, tat, now, max(1, cost))
        new_tat, debt_s = charge(quota, tat, now, max(1, cost))
        assert debt_s >= 0.0
        if cost <= quota.burst:
            assert (debt_s == 0.0) is decision.allowed
            assert debt_s == decision.retry_after_s
        tat = new_tat
        assert charge(quota, tat, now + debt_s, 0) == (max(tat, now + debt_s), 0.0)


@given(quota=QUOTAS, tat=st.one_of(st.none(), STARTS), start=STARTS)
def test_the_wait_for_one_token_is_what_is_decided(quota: Quota, tat: float | None, start: float) -> None:
    """The wait for one token is exactly that of the decision."""
    decision = decide(quota, tat, start)
    assert wait_s(quota, tat, start) == decision.retry_after_s
    assert (wait_s(quota, tat, start) == 0.0) is decision.allowed


@given(QUOTAS, STARTS, st.one_of(st.none(), st.floats(-10.0, 2_000.0)))
def test_tokens_that_are_left_can_be_taken(quota: Quota, now: float, later_s: float | None) -> None:
    """As many tokens as are left can be taken one by one, and none are left exactly while there is a wait."""
    tat = None if later_s is None else now + later_s
    left = tokens_left(quota, tat, now)
    assert (left == 0) == (wait_s(quota, tat, now) > 0)
    assert left <= quota.burst
    for _ in range(left):
        decision = decide(quota, tat, now)
        # Beyond the resolution, sums of many intervals are rounded; see the module.
        assert decision.allowed or decision.retry_after_s < 1e-3
        tat = decision.tat
