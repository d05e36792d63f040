"""When certificates are renewed, and how failures are spread."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.acme.schedule import FIRST_RETRY_S, LONGEST_RETRY_S, asked_renewal_at, renewal_at, retry_after_s

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
    latest = asked_renewal_at(inf, begins_at, begins_at + lifetime_s)
    assert begins_at + lifetime_s / 2 < at < latest < begins_at + lifetime_s


def test_an_authority_cannot_ask_for_one_renewal_after_another() -> None:
    """A certificate is used for six hours, or for nine tenths of a shorter life; within that the authority decides."""
    assert asked_renewal_at(-1e9, 0, 90 * DAY_S) == 6 * 3600
    assert asked_renewal_at(10 * DAY_S, 0, 90 * DAY_S) == 10 * DAY_S
    assert asked_renewal_at(0, 0, 600) == 540


def test_failures_wait_longer_each_time() -> None:
    """10, 20, 40 minutes: fewer than five tries in an hour; never longer than half a day."""
    assert [retry_after_s(failures, 0) for failures in (1, 2, 3)] == [600, 1200, 2400]
    assert retry_after_s(1000, 0) == LONGEST_RETRY_S


@given(st.integers(1, 10_000), chances)
def test_waits_are_bounded(failures: int, chance: float) -> None:
    """A quarter is added at most."""
    assert FIRST_RETRY_S <= retry_after_s(failures, chance) <= LONGEST_RETRY_S * 1.25
