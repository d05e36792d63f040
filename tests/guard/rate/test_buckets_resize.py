"""Buckets whose bound changes while they are in use, and slices of a sweep."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.keys import ADDRESS_LADDER, AddressKey, address_key
from pyryrelay.guard.errors import LimitError
from pyryrelay.guard.rate.buckets import MIN_TRACKED, Buckets, Tracking
from pyryrelay.guard.rate.gcra import decide
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.tables import ShardedDict

QUOTA = Quota.parse("1/second burst 3")
SLOW = Quota.parse("1/day burst 2")


def buckets(quota: Quota, max_tracked: int = MIN_TRACKED) -> Buckets[AddressKey]:
    """Return buckets of addresses, all full."""
    return Buckets(quota, Tracking(max_tracked, ADDRESS_LADDER, ShardedDict))


def v4(text: str) -> int:
    """Return the key of an IPv4 client."""
    return address_key(IPv4Address(text), 32)


def scan(number: int) -> int:
    """Return the key of the n-th client of a scan that shares as few prefixes as it can."""
    return v4(f"{number % 200 + 1}.{number // 200}.0.1")


def test_a_bound_that_is_too_small_changes_nothing() -> None:
    """A bound below the minimum is refused, and the old one is kept."""
    table = buckets(QUOTA, 2_000)
    with pytest.raises(LimitError, match="999"):
        table.resize(999)
    assert table.max_tracked == 2_000


def test_less_room_keeps_known_clients() -> None:
    """After shrinking known clients keep their buckets, new ones share, and the table grows by at most two."""
    table = buckets(SLOW, 4_000)
    for number in range(2_000):
        table.spend(scan(number), 0.0)
    table.resize(MIN_TRACKED)
    assert table.spend(scan(0), 0.0).allowed
    assert not table.spend(scan(0), 0.0).allowed
    assert [table.spend(scan(number), 0.0).allowed for number in range(2_000, 2_003)] == [True, True, False]
    assert not table.spend(address_key(IPv6Address("2001:db8::"), 64), 0.0, 3).allowed
    assert len(table) == 2_001


def test_more_room_gives_new_clients_buckets_of_their_own() -> None:
    """After growing new clients do not share, and one that emptied a shared bucket inherits its debt."""
    table = buckets(SLOW)
    for number in range(998):
        table.spend(scan(number), 0.0)
    poor = v4("203.0.113.1")
    assert [table.spend(poor, 0.0).allowed for _ in range(3)] == [True, True, False]
    table.resize(4_000)
    assert not table.spend(poor, 0.0).allowed
    for text in ("2001:db8::", "2001:db9::"):
        key = address_key(IPv6Address(text), 64)
        assert [table.spend(key, 0.0).allowed for _ in range(3)] == [True, True, False]


def test_a_sweep_can_be_told_how_much_to_dispose_of() -> None:
    """A sweep takes a budget, so that several tables can divide a slice."""
    table = buckets(QUOTA)
    for number in range(10):
        table.spend(scan(number), 0.0)
    for now in (0.0, 10.0):
        table.sweep(now, 3)
    assert len(table) == 7
    table.sweep(10.0)
    assert len(table) == 0


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 1.0, QUOTA.full_after_s + 1.0]),
            st.sampled_from([MIN_TRACKED, 1_200, 4_000]),
            st.integers(0, 300),
            st.lists(st.sampled_from(["203.0.113.1", "203.0.113.2", "203.0.112.1", "204.0.0.1"]), max_size=4),
            st.booleans(),
        ),
        max_size=15,
    )
)
def test_resizing_grants_nothing(steps: list[tuple[float, int, int, list[str], bool]]) -> None:
    """However the bound changes under a flood, sharing admits no more than separate buckets would."""
    table, tats, now, scanned = buckets(QUOTA), dict[int, float](), 0.0, 900
    for number in range(scanned):
        table.spend(scan(number), now)
    for step_s, bound, new_clients, clients, sweeps in steps:
        now += step_s
        before = len(table)
        table.resize(bound)
        if sweeps:
            table.sweep(now)
        for number in range(scanned, scanned + new_clients):
            table.spend(scan(number), now)
        scanned += new_clients
        for key in map(v4, clients):
            if table.spend(key, now).allowed:
                decision = decide(QUOTA, tats.get(key), now)
                assert decision.allowed
                tats[key] = decision.tat
        assert len(table) <= max(bound, before + 2)
