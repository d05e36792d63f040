"""Refusals in the terms of HTTP."""

from __future__ import annotations

from math import inf

import pytest

from pyryrelay.guard.jitter import Jitter
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import Reason, Refusal

QUOTA = Quota.parse("1/10s burst 2")


@pytest.mark.parametrize(
    ("retry_after_s", "header"),
    [
        (None, None),
        (inf, None),
        (1e-9, "1"),
        (0.3, "1"),
        (1.0, "1"),
        (5.2, "6"),
        (6.0, "6"),
        (6.0000002, "6"),
        (6.00001, "7"),
    ],
)
def test_retry_after_is_whole_seconds_rounded_up(retry_after_s: float | None, header: str | None) -> None:
    """`Retry-After` is rounded up, at least 1, and absent where waiting does not help."""
    assert Refusal(429, Reason.RATE_LIMIT, retry_after_s).retry_after_header == header


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (Reason.RATE_LIMIT, "rate_limit"),
        (Reason.QUEUE_FULL, "rate_limit"),
        (Reason.PREFIX_RATE_LIMIT, "prefix_rate_limit"),
        (Reason.PREFIX_QUEUE_FULL, "prefix_rate_limit"),
        (Reason.HTTP_RATE_LIMIT, "http_rate_limit"),
    ],
)
def test_a_quota_has_one_name(reason: Reason, name: str) -> None:
    """A refusal names the same quota whether there is a place in the queue or not."""
    assert Refusal(429, reason, 6.0, QUOTA).quota_name == name


@pytest.mark.parametrize(
    ("status", "phrase"), [(429, "Too Many Requests"), (503, "Service Unavailable"), (403, "Forbidden")]
)
def test_phrase_is_the_standard_one(status: int, phrase: str) -> None:
    """The reason phrase is HTTP's own."""
    assert Refusal(status, Reason.DENIED, None).phrase == phrase


def test_refusals_with_jitter() -> None:
    """A wait gets longer, and no wait stays none."""
    jitter, cap, denied = Jitter(5.0), Refusal(503, Reason.GLOBAL_CAP, 5.0), Refusal(403, Reason.DENIED, None)
    assert cap.with_jitter(jitter, 0.5) == Refusal(503, Reason.GLOBAL_CAP, 7.5)
    assert cap.with_jitter(jitter, 0.5).retry_after_header == "8"
    assert denied.with_jitter(jitter, 0.5) == denied
