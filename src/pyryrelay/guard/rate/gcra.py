"""The decision of one token bucket, as GCRA computes it.

The Generic Cell Rate Algorithm (ITU-T I.371, virtual scheduling form) keeps one number per bucket: the
*theoretical arrival time* (tat), the moment at which the bucket is full again. An unused bucket has no tat. All times
are seconds on one monotonic clock. Nothing here keeps state.

With T the emission interval and B the burst, a request of cost c at ``now`` is allowed if
``max(tat, now) + c*T - now <= B*T``: B tokens at once, then one each T.

Floats: the comparison is `RESOLUTION_S` generous, so that rounding neither refuses the B-th token of a burst
nor a client that waited exactly as long as it was told. The tat itself never gains from it, so it does not
add up: in any window a bucket grants at most ``B + (window + RESOLUTION_S)/T``. Rounding stays below the
resolution for bursts of up to 1000 taken one by one, on clocks that read less than 2**24 s (194 days). Beyond
that the last token of a burst may come some microseconds late.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from pyryrelay.guard.errors import LimitError
from pyryrelay.guard.rate.quota import Quota

__all__ = ["RESOLUTION_S", "Decision", "charge", "decide", "tokens_left", "wait_s"]

RESOLUTION_S: Final = 1e-6
"""Differences below this are rounding, not time."""


class Decision(NamedTuple):
    """The answer of a bucket.

    ``tat`` is the state to keep if the request goes ahead; a refusal returns the tat that it was given (``now`` for a
    full bucket without one). ``retry_after_s`` is 0 when allowed, else the shortest wait after which the same request
    is allowed (``inf``: never, it costs more than the burst).
    """

    allowed: bool
    tat: float
    retry_after_s: float


def decide(quota: Quota, tat: float | None, now: float, cost: int = 1) -> Decision:
    """Decide on a request of ``cost`` tokens at ``now`` against a bucket in state ``tat`` (None: full).

    Raises `LimitError` for a cost below 1, which would hand out tokens.
    """
    if cost < 1:
        raise LimitError(f"cost {cost!r} is not a number of tokens: use 1 or more")
    base = now if tat is None or tat < now else tat
    new_tat = base + cost * quota.emission_interval_s
    excess_s = new_tat - now - quota.full_after_s
    if excess_s <= RESOLUTION_S and cost <= quota.burst:
        return Decision(True, new_tat, 0.0)
    retry_after_s = excess_s if cost <= quota.burst else inf
    return Decision(False, now if tat is None else tat, retry_after_s)


def wait_s(quota: Quota, tat: float | None, now: float) -> float:
    """Return the seconds until there is a token, 0 if there is one: the ``retry_after_s`` of `decide`, in less time."""
    base = now if tat is None or tat < now else tat
    excess_s = base + quota.emission_interval_s - now - quota.full_after_s
    return excess_s if excess_s > RESOLUTION_S else 0.0


def tokens_left(quota: Quota, tat: float | None, now: float) -> int:
    """Return how many tokens a bucket in state ``tat`` has now: as many as `decide` would give one by one."""
    if wait_s(quota, tat, now):
        return 0
    taken_s = 0.0 if tat is None or tat < now else tat - now
    # The division must not round the one token away for which there is no wait.
    return max(1, int((quota.full_after_s - taken_s + RESOLUTION_S) / quota.emission_interval_s))


def charge(quota: Quota, tat: float, now: float, cost: int) -> tuple[float, float]:
    """Take ``cost`` tokens even if they are not there; return the new tat and the seconds until the debt is paid.

    For what has happened already and cannot be refused. A tat in the past is a full bucket; a cost of 0 asks for the
    debt alone.
    """
    new_tat = max(tat, now) + cost * quota.emission_interval_s
    debt_s = new_tat - now - quota.full_after_s
    return new_tat, debt_s if debt_s > RESOLUTION_S else 0.0
