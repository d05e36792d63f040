"""When certificates are renewed, and how failures are spread."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.acme.schedule import FIRST_RETRY_S, LONGEST_RETRY_S, latest, renewal_at, retry_after_s

DAY_S = 86_400.0
chances = st.floats(0, 1)


def test_a_certificate_is_renewed_after_two_thirds_of_its_lifetime() -> None:
    """90 days last until day 60, and the earliest renewal is three days before."""
    assert renewal_at(0, 90 * DAY_S, 0) == 60 * DAY_S
    assert round(renewal_at(0, 90 * DAY_S, 1) / DAY_S, 6) == 57


@given(st.floats(0, 4e9), st.floats(60, 400 * DAY_S), chances)
def test_renewals_are_within_the_lifetime(begins_at: float, lifetime_s: float, chance: float) -> None:
    """A renewal is planned in the second half of the lifetime, and never later than it may be put off."""
    at = renewal_at(begins_at, begins_at + lifetime_s, chance)
    assert begins_at + lifetime_s / 2 < at < latest(begins_at, begins_at + lifetime_s) < begins_at + lifetime_s


def test_failures_wait_longer_each_time() -> None:
    """10, 20, 40 minutes: fewer than five tries in an hour; never longer than half a day."""
    assert [retry_after_s(failures, 0) for failures in (1, 2, 3)] == [600, 1200, 2400]
    assert retry_after_s(1000, 0) == LONGEST_RETRY_S


@given(st.integers(1, 10_000), chances)
def test_waits_are_bounded(failures: int, chance: float) -> None:
    """A quarter is added at most."""
    assert FIRST_RETRY_S <= retry_after_s(failures, chance) <= LONGEST_RETRY_S * 1.25
