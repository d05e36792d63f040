"""How many refusals jail a client, and for how long."""

from __future__ import annotations

from math import inf, nan

import pytest

from pyryrelay.guard import LimitError
from pyryrelay.guard.jail import MAX_DURATION_S, MAX_REFUSALS, Jail, JailPolicy

POLICY = JailPolicy(refusals=3, within_s=10.0, first_s=100.0, longest_s=350.0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"refusals": 1}, "refusals 1 "),
        ({"refusals": 10_001}, "refusals 10001 "),
        ({"within_s": 0.5}, "within_s 0.5 "),
        ({"first_s": 0.0}, "first_s 0.0 "),
        ({"first_s": nan}, "first_s nan "),
        ({"longest_s": inf}, "longest_s inf "),
        ({"first_s": 600.0, "longest_s": 599.0}, "longest_s 599.0 is shorter than first_s 600.0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float], named: str) -> None:
    """The error names the number."""
    with pytest.raises(LimitError, match=named):
        JailPolicy(**wrong)  # type: ignore[arg-type]


def test_the_most_that_is_allowed() -> None:
    """The bounds themselves are in range."""
    policy = JailPolicy(MAX_REFUSALS, MAX_DURATION_S, MAX_DURATION_S, MAX_DURATION_S)
    assert Jail(policy).add(100, MAX_DURATION_S, 0.0).until_s == MAX_DURATION_S


def test_doubling_never_overflows() -> None:
    """After any number of bans, the longest ban is the longest."""
    assert POLICY.duration_s(0) == 0.0
    assert POLICY.duration_s(10**9) == 350.0


def test_each_sentence_is_twice_as_long() -> None:
    """Up to the longest; a sentence by hand is remembered for no time."""
    assert [POLICY.duration_s(times) for times in range(5)] == [0.0, 100.0, 200.0, 350.0, 350.0]
