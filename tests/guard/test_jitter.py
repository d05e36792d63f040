"""Jitter: a bounded delay on top of a wait, from the caller's random number."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.jitter import Jitter


@pytest.mark.parametrize(("fraction", "wait_s"), [(0.0, 7.0), (0.5, 8.5), (1.0, 10.0)])
def test_a_delay_between_two_bounds(fraction: float, wait_s: float) -> None:
    """The random number chooses a delay between the least and the most."""
    assert Jitter(3.0, min_s=1.0).added_to(6.0, fraction) == wait_s


@given(
    spread_s=st.floats(0.0, 1e6), min_s=st.floats(0.0, 1e6), wait_s=st.floats(0.0, 1e6), fraction=st.floats(0.0, 1.0)
)
def test_no_wait_is_shortened(spread_s: float, min_s: float, wait_s: float, fraction: float) -> None:
    """A delay is never negative."""
    assert Jitter(spread_s, min_s).added_to(wait_s, fraction) >= wait_s


@pytest.mark.parametrize("seconds", [-0.1, inf, nan])
def test_impossible_delays_are_refused(seconds: float) -> None:
    """The error for a delay that is negative, infinite or no number names it."""
    with pytest.raises(GuardError, match="jitter spread_s"):
        Jitter(seconds)
    with pytest.raises(GuardError, match="jitter min_s"):
        Jitter(1.0, seconds)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 42.0, nan])
def test_what_is_no_fraction_is_refused(fraction: float) -> None:
    """A random number outside of 0 to 1 is an error."""
    with pytest.raises(GuardError, match=r"use random\.random"):
        Jitter(1.0).added_to(6.0, fraction)
