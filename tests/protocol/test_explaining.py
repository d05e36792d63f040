"""What protocols tell operators: the words and figures of a bucket, and times."""

from __future__ import annotations

import pytest

from pyryrelay.guard import ADDRESS_LADDER, Buckets, ClusterBuckets, Quota, ShardedDict, Spent, Tracking, client_address
from pyryrelay.protocol.explaining import Rule, level_figures, level_text, time_text

QUOTA = Quota.parse("1/minute burst 3")
TRACKING = Tracking(1_000, ADDRESS_LADDER, ShardedDict)
_CLIENT = client_address("192.0.2.1")
assert _CLIENT is not None
KEY = _CLIENT.key


def test_what_is_left() -> None:
    """How many tokens of the burst there are, or how long there is none, with the quota and its option."""
    buckets = Buckets(QUOTA, TRACKING)
    buckets.spend(KEY, 0.0)
    assert level_text(buckets.level(KEY, 0.0), "--x") == "2 of 3 left, 1/minute burst 3 (--x)"
    buckets.spend(KEY, 0.0, 2)
    assert level_text(buckets.level(KEY, 0.5), "--x") == "none left for 60 s, 1/minute burst 3 (--x)"
    assert level_figures(buckets.level(KEY, 0.5), "--x") == {
        "option": "--x",
        "quota": "1/minute burst 3",
        "left": 0,
        "wait_s": 59.5,
        "full_s": 179.5,
        "elsewhere": 0,
        "owes": 0,
    }


@pytest.mark.parametrize(
    ("spent", "said"),
    [
        (2, "1 of 3 left, 1/minute burst 3 (--x); others have spent 2: full again in 2 min"),
        (5, "none left for 3 min, 1/minute burst 3 (--x); others have spent 5, so it owes 2: full again in 5 min"),
    ],
)
def test_what_others_have_spent(spent: int, said: str) -> None:
    """Who the others are, how much they have spent, and what is owed because of that."""
    buckets = ClusterBuckets(QUOTA, TRACKING)
    buckets.absorb([Spent(KEY, spent)], 0.0)
    assert level_text(buckets.level(KEY, 0.0), "--x", "others") == said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 s"),
        (5.2, "6 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7_199.0, "120 min"),
        (7_200.0, "2 h"),
        (2e5, "3 d"),
    ],
)
def test_times_are_rounded_up(seconds: float, text: str) -> None:
    """A client that waits as long as the operator reads has waited long enough."""
    assert time_text(seconds) == text


def test_a_rule_needs_three_fields() -> None:
    """A rule without figures and advice says nothing to programs, and counts as unused."""
    rule = Rule("store", "ok", "it works")
    assert (rule.advice, dict(rule.figures), rule.used) == ("", {}, 0.0)
