"""The virtual queue of buckets: the order of promised tokens, that promises hold, and bounded memory."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.rate.gcra import decide, wait_s
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.reservations import LATE_S, LATEST_S, Reservations
from pyryrelay.guard.rate.tables import ShardedDict

TEN = Quota.parse("10/minute burst 20")
KEY, OTHER = 8, 9


def empty(quota: Quota, max_keys: int = 100) -> Reservations[int]:
    """Return reservations without a promise."""
    return Reservations(quota, max_keys, ShardedDict)


def reserved(reservations: Reservations[int], quota: Quota, tat: float, now: float, key: int = KEY) -> float:
    """Promise the next token, round the wait as HTTP does, and return the time that the client was told."""
    expected = max(tat, reservations.tat(key))
    earliest_s = now + wait_s(quota, expected, now)
    told_s = now + ceil(earliest_s - now)
    reservations.add(key, expected, earliest_s, told_s)
    return told_s


def test_nothing_is_promised_at_first() -> None:
    """A bucket without promises is not affected."""
    reservations = empty(TEN)
    assert reservations.tat(KEY) == -inf
    assert len(reservations) == 0


def test_one_token_each() -> None:
    """Each client is told one emission interval later than the one before, in a queue for each bucket."""
    reservations = empty(TEN)
    assert [reserved(reservations, TEN, 120.0, 0.0) for _ in range(3)] == [6.0, 12.0, 18.0]
    assert reserved(reservations, TEN, 120.0, 0.0, OTHER) == 6.0
    assert reservations.tat(KEY) == 138.0
    assert len(reservations) == 2


@pytest.mark.parametrize(
    ("quota", "spacing_s"), [("10/minute burst 1", 7.5), ("60/minute burst 1", 1.5), ("10/minute burst 2", 6.0)]
)
def test_a_burst_of_one_leaves_room_for_late_clients(quota: str, spacing_s: float) -> None:
    """Without a burst to save tokens, a client that is late must not take the token of the next one."""
    found = Quota.parse(quota)
    reservations = empty(found)
    assert reservations.spacing_s == spacing_s
    told = [reserved(reservations, found, found.full_after_s, 0.0) for _ in range(30)]
    assert all(later - earlier <= ceil(spacing_s) for earlier, later in pairwise(told))


@given(
    quota=st.sampled_from(
        [*map(Quota.parse, ("10/minute burst 1", "1/3s burst 1", "2/s burst 4", "10/minute burst 20"))]
    ),
    asked=st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, LATE_S)), min_size=1, max_size=64),
)
def test_who_comes_when_told_finds_a_token(quota: Quota, asked: list[tuple[float, float]]) -> None:
    """Clients that are at most as late as the bound find a token, whenever they asked."""
    reservations, now, spent = empty(quota), 0.0, quota.full_after_s
    arrivals = []
    for step_s, late_s in asked:
        now += step_s
        arrivals.append(reserved(reservations, quota, spent, now) + late_s)
    tat = spent
    for arrival in sorted(arrivals):
        decision = decide(quota, tat, arrival)
        assert decision.allowed
        tat = decision.tat


def test_a_promise_is_forgotten_when_its_time_is_over() -> None:
    """A promise uses memory until its client can no longer claim it."""
    reservations = empty(TEN)
    reserved(reservations, TEN, 120.0, 0.0)
    reserved(reservations, TEN, 120.0, 0.0)
    for now in (1.0, 12.0, 12.4):
        reservations.sweep(now, 10)
        assert reservations.tat(KEY) == 132.0
    reserved(reservations, TEN, 120.0, 12.4)
    reservations.sweep(12.6, 10)
    assert reservations.tat(KEY) == 138.0
    reservations.sweep(19.0, 10)
    assert (reservations.tat(KEY), len(reservations)) == (-inf, 0)


def test_a_sweep_frees_one_slice() -> None:
    """Promises that are over are freed a slice at a time."""
    reservations = empty(TEN, 1_000)
    for key in range(2, 102):
        reserved(reservations, TEN, 120.0, 0.0, key)
    reservations.sweep(1.0, 30)
    sizes = []
    for now in (10.0, 11.0, 12.0, 13.0):
        reservations.sweep(now, 30)
        sizes.append(len(reservations))
    assert sizes == [70, 40, 10, 0]


def test_without_room_the_oldest_are_forgotten() -> None:
    """Memory is bounded, and a key that is used often is not forgotten."""
    reservations = empty(TEN)
    for number in range(1, 500):
        reserved(reservations, TEN, 120.0, 0.0, 1_000 + number)
        reserved(reservations, TEN, 120.0, 0.0)
        assert len(reservations) <= 100
        assert reservations.tat(KEY) == 120.0 + 6.0 * number
    reservations.resize(10)
    for number in range(200):
        reserved(reservations, TEN, 120.0, 0.0, 2_000 + number)
    assert len(reservations) <= 10


def test_clients_are_late_by_rounding_and_jitter() -> None:
    """The queue allows for a second of rounding and half a second of jitter."""
    assert (LATE_S, LATEST_S) == (0.5, 1.5)
