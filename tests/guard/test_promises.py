"""The virtual queue of buckets: who is promised when, that promises hold, and bounded memory."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.gcra import decide, wait_s
from pyryrelay.guard.promises import LATE_S, LATEST_S, Promises
from pyryrelay.guard.quota import Quota

TEN = Quota.parse("10/minute burst 20")
KEY, OTHER = 8, 9


def promised(promises: Promises, quota: Quota, tat: float, now: float, key: int = KEY) -> float:
    """Promise the next token, and tell it as HTTP does; the moment that the client was told."""
    expected = max(tat, promises.tat(key))
    earliest_s = now + wait_s(quota, expected, now)
    told_s = now + ceil(earliest_s - now)
    promises.add(key, expected, earliest_s, told_s)
    return told_s


def test_nothing_is_promised_at_first() -> None:
    """A bucket that nobody waits for will never have been fuller than it is."""
    promises = Promises(TEN, 100)
    assert promises.tat(KEY) == -inf
    assert len(promises) == 0


def test_one_token_each() -> None:
    """Each client is told one emission interval later than the one before; every bucket has a queue of its own."""
    promises = Promises(TEN, 100)
    assert [promised(promises, TEN, 120.0, 0.0) for _ in range(3)] == [6.0, 12.0, 18.0]
    assert promised(promises, TEN, 120.0, 0.0, OTHER) == 6.0
    assert promises.tat(KEY) == 138.0
    assert len(promises) == 2


@pytest.mark.parametrize(
    ("quota", "pace_s"), [("10/minute burst 1", 7.5), ("60/minute burst 1", 1.5), ("10/minute burst 2", 6.0)]
)
def test_a_burst_of_one_leaves_room_for_late_clients(quota: str, pace_s: float) -> None:
    """Where no token can be saved up, a client that is late must not take the next one's."""
    found = Quota.parse(quota)
    promises = Promises(found, 100)
    assert promises.pace_s == pace_s
    told = [promised(promises, found, found.full_after_s, 0.0) for _ in range(30)]
    assert all(later - earlier <= ceil(pace_s) for earlier, later in pairwise(told))


@given(
    quota=st.sampled_from(
        [*map(Quota.parse, ("10/minute burst 1", "1/3s burst 1", "2/s burst 4", "10/minute burst 20"))]
    ),
    asked=st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, LATE_S)), min_size=1, max_size=64),
)
def test_who_comes_when_told_finds_a_token(quota: Quota, asked: list[tuple[float, float]]) -> None:
    """Whatever moments clients ask at, and however late they are within the bound: in the order they come in."""
    promises, now, empty = Promises(quota, 100), 0.0, quota.full_after_s
    arrivals = []
    for step_s, late_s in asked:
        now += step_s
        arrivals.append(promised(promises, quota, empty, now) + late_s)
    tat = empty
    for arrival in sorted(arrivals):
        decision = decide(quota, tat, arrival)
        assert decision.allowed
        tat = decision.tat


def test_a_promise_is_forgotten_when_its_time_is_over() -> None:
    """Memory is free again once everybody can have come, and not before."""
    promises = Promises(TEN, 100)
    promised(promises, TEN, 120.0, 0.0)
    promised(promises, TEN, 120.0, 0.0)
    for now in (1.0, 12.0, 12.4):
        promises.sweep(now, 10)
        assert promises.tat(KEY) == 132.0
    promised(promises, TEN, 120.0, 12.4)
    promises.sweep(12.6, 10)
    assert promises.tat(KEY) == 138.0
    promises.sweep(19.0, 10)
    assert (promises.tat(KEY), len(promises)) == (-inf, 0)


def test_a_sweep_frees_one_slice() -> None:
    """What is over is freed a slice at a time."""
    promises = Promises(TEN, 1_000)
    for key in range(2, 102):
        promised(promises, TEN, 120.0, 0.0, key)
    promises.sweep(1.0, 30)
    sizes = []
    for now in (10.0, 11.0, 12.0, 13.0):
        promises.sweep(now, 30)
        sizes.append(len(promises))
    assert sizes == [70, 40, 10, 0]


def test_without_room_the_oldest_are_forgotten() -> None:
    """However many keys there are, memory is bounded, and one that is asked about often is not forgotten."""
    promises = Promises(TEN, 100)
    for number in range(1, 500):
        promised(promises, TEN, 120.0, 0.0, 1_000 + number)
        promised(promises, TEN, 120.0, 0.0)
        assert len(promises) <= 100
        assert promises.tat(KEY) == 120.0 + 6.0 * number
    promises.resize(10)
    for number in range(200):
        promised(promises, TEN, 120.0, 0.0, 2_000 + number)
    assert len(promises) <= 10


def test_clients_are_late_by_rounding_and_jitter() -> None:
    """The bounds that the queue reckons with: a second of rounding, and half of one that they may choose."""
    assert (LATE_S, LATEST_S) == (0.5, 1.5)
