"""Many buckets in bounded memory: forgetting and sharing never admit more."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.keys import ADDRESS_LADDER, AddressKey, address_key, coarser
from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.rate import buckets as buckets_module
from pyryrelay.guard.rate.buckets import MIN_TRACKED, Buckets, Level, Tracking
from pyryrelay.guard.rate.gcra import RESOLUTION_S, decide
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.tables import ShardedDict

QUOTA = Quota.parse("1/second burst 3")
SLOW = Quota.parse("1/day burst 2")


def buckets(quota: Quota, max_tracked: int = MIN_TRACKED) -> Buckets[AddressKey]:
    """Return buckets of addresses, all full."""
    return Buckets(quota, Tracking(max_tracked, ADDRESS_LADDER, ShardedDict))


def tokens(table: Buckets[AddressKey], key: AddressKey, now: float) -> int:
    """Return how many tokens the bucket of a key has, while no client waits for one."""
    _, tat, _ = table.next_place(key, now)
    saved_s = table.quota.full_after_s - max(0.0, tat - now)
    return round(saved_s / table.quota.emission_interval_s)


def v4(text: str) -> int:
    """Return the key of an IPv4 client."""
    return address_key(IPv4Address(text), 32)


def v6(text: str, bits: int = 64) -> int:
    """Return the key of an IPv6 client."""
    return address_key(IPv6Address(text), bits)


def scan(number: int) -> int:
    """Return the key of the n-th client of a scan that shares as few prefixes as it can."""
    return v4(f"{number % 200 + 1}.{number // 200}.0.1")


def filled(size: int, quota: Quota = SLOW) -> Buckets[AddressKey]:
    """Return buckets of at most 1000 keys, `size` of them tracked."""
    table = buckets(quota)
    for number in range(size):
        table.spend(scan(number), 0.0)
    assert len(table) == size
    return table


class NeverEvicting:
    """The reference: every client has its own bucket for ever."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.tats: dict[int, float] = {}

    def spend(self, key: int, now: float) -> bool:
        """Decide and keep the tat."""
        decision = decide(self.quota, self.tats.get(key), now)
        if decision.allowed:
            self.tats[key] = decision.tat
        return decision.allowed


def test_a_bound_that_is_too_small_is_refused() -> None:
    """A bound below a thousand keys is an error."""
    with pytest.raises(GuardError, match="999"):
        buckets(QUOTA, 999)


def test_each_key_has_its_own_bucket() -> None:
    """What one client spends does not affect another."""
    table = buckets(QUOTA)
    assert [table.spend(v4("192.0.2.1"), 10.0).allowed for _ in range(4)] == [True, True, True, False]
    assert table.spend(v4("192.0.2.2"), 10.0).allowed
    assert tokens(table, v4("192.0.2.2"), 10.0) == 2
    assert table.spend(v6("2001:db8::"), 10.0, 3).allowed
    assert table.spend(v4("192.0.2.1"), 11.0).allowed
    assert len(table) == 3


def test_the_wait_agrees_with_spend() -> None:
    """For its own, a shared and an untouched bucket the wait is that of `spend`; asking changes nothing."""
    table = filled(MIN_TRACKED - 10)
    for key in (scan(0), scan(MIN_TRACKED), v4("198.51.100.1"), v6("2001:db8::")):
        for _ in range(4):
            size = len(table)
            waits_s = [table.wait_s(key, 1.0) for _ in range(3)]
            assert len(table) == size
            assert waits_s == [table.spend(key, 1.0).retry_after_s] * 3
    assert buckets(QUOTA).wait_s(v4("198.51.100.1"), 1.0) == 0.0


@given(
    steps=st.lists(st.tuples(st.one_of(st.just(0.0), st.floats(0.0, 1.0)), st.integers(0, 3), st.integers(1, 4))),
    start=st.floats(0.0, 1e6),
    size=st.sampled_from([0, 749, 990]),
)
def test_no_wait_is_longer_than_for_a_token(steps: list[tuple[float, int, int]], start: float, size: int) -> None:
    """Whatever was spent before, the wait is at most that for one token."""
    table, now = filled(size, QUOTA), start
    for step_s, number, cost in steps:
        now += step_s
        table.spend(scan(size + number), now, cost)
        assert all(
            table.wait_s(scan(size + number), now) <= QUOTA.emission_interval_s + 2 * RESOLUTION_S
            for number in range(4)
        )


def test_refused_clients_are_not_tracked() -> None:
    """A request that never fits uses no memory."""
    table = buckets(QUOTA)
    assert not table.spend(v4("192.0.2.1"), 10.0, 4).allowed
    assert len(table) == 0


def test_two_idle_rotations_forget_a_key() -> None:
    """A key that does not spend for two rotations is dropped, and one that spends stays."""
    table = buckets(QUOTA)
    turn_s = QUOTA.full_after_s + 1.0
    table.spend(v4("192.0.2.1"), 0.0)
    table.spend(v4("192.0.2.2"), 0.0)
    table.sweep(0.0)
    table.spend(v4("192.0.2.2"), 1.0)
    table.sweep(turn_s)
    assert len(table) == 1
    table.sweep(turn_s + QUOTA.full_after_s - RESOLUTION_S)
    assert len(table) == 1
    table.sweep(2 * turn_s)
    assert len(table) == 0


def test_a_sweep_disposes_of_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped keys are freed a slice at a time, across several dropped generations."""
    monkeypatch.setattr(buckets_module, "SWEEP_SLICE", 30)
    table = filled(50, QUOTA)
    table.sweep(10.0)
    table.spend(v4("192.0.2.1"), 10.0)
    table.sweep(20.0)
    assert len(table) == 21
    table.sweep(20.0)
    assert len(table) == 1
    table.spend(v4("192.0.2.2"), 20.0)
    monkeypatch.setattr(buckets_module, "SWEEP_SLICE", 1)
    table.sweep(30.0)
    assert len(table) == 1
    table.sweep(40.0)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("size", "same_bucket", "other_bucket"),
    [
        (749, None, "203.0.113.2"),
        (750, "203.0.113.2", "203.0.112.1"),
        (875, "203.0.112.1", "203.1.0.1"),
        (937, "203.1.0.1", "204.0.0.1"),
        (998, "204.0.0.1", None),
    ],
)
def test_less_room_means_coarser_sharing(size: int, same_bucket: str | None, other_bucket: str | None) -> None:
    """As the table fills, new IPv4 clients share a /24, a /16, a /8 and in the end one bucket."""
    table = filled(size)
    table.spend(v4("203.0.113.1"), 0.0)
    if same_bucket is not None:
        assert tokens(table, v4(same_bucket), 0.0) == 1
    if other_bucket is not None:
        assert tokens(table, v4(other_bucket), 0.0) == 2


@pytest.mark.parametrize(
    ("size", "same_bucket", "other_bucket"),
    [
        (749, None, "2001:db8:1:2::"),
        (750, "2001:db8:1:2::", "2001:db8:2::"),
        (875, "2001:db8:2::", "2001:db9::"),
        (937, "2001:db9::", "2002::"),
        (998, "2002::", None),
    ],
)
def test_ipv6_shares_its_own_prefixes(size: int, same_bucket: str | None, other_bucket: str | None) -> None:
    """As the table fills, new IPv6 clients share a /48, a /32, a /16 and in the end one bucket."""
    table = filled(size)
    table.spend(v6("2001:db8:1:1::"), 0.0)
    if same_bucket is not None:
        assert tokens(table, v6(same_bucket), 0.0) == 1
    if other_bucket is not None:
        assert tokens(table, v6(other_bucket), 0.0) == 2


def test_the_last_bucket_of_each_family_always_fits() -> None:
    """A full table serves new clients from one bucket per family, and grows no further."""
    table = filled(998)
    for number in range(998, 1_200):
        table.spend(scan(number), 0.0)
        table.spend(v6(f"{number:x}::"), 0.0)
    assert len(table) == MIN_TRACKED
    assert not table.spend(v4("203.0.113.1"), 0.0).allowed
    assert not table.spend(v6("2001:db8::"), 0.0).allowed


def test_known_clients_keep_their_own_bucket() -> None:
    """A client that was tracked before a flood keeps its own bucket."""
    table = filled(998)
    assert table.spend(scan(0), 0.0).allowed
    assert not table.spend(scan(0), 0.0).allowed
    assert table.spend(scan(1), 0.0).allowed


def test_a_shared_bucket_is_used_as_long_as_it_is_tracked() -> None:
    """With less room clients of a tracked shared prefix keep its bucket."""
    table = filled(750)
    table.spend(v4("203.0.113.1"), 0.0)
    for number in range(750, 950):
        table.spend(scan(number), 0.0)
    assert table.spend(v4("203.0.113.2"), 0.0).allowed
    assert tokens(table, v4("203.0.113.2"), 0.0) == 0
    assert not table.spend(v4("203.0.113.3"), 0.0).allowed


def test_a_debt_of_a_shared_bucket_is_inherited() -> None:
    """A client that emptied a shared bucket gets no full one of its own when there is room again."""
    quota = Quota.parse("1/second burst 2")
    table = filled(750, quota)
    table.sweep(0.0)
    client = v4("203.0.113.1")
    assert [table.spend(client, 9.0).allowed for _ in range(3)] == [True, True, False]
    table.sweep(9.0)
    assert len(table) == 1
    assert not table.spend(client, 9.0).allowed
    assert table.spend(client, 10.0).allowed
    assert tokens(table, client, 10.0) == 0
    assert table.spend(v4("203.0.113.2"), 11.5).allowed
    assert tokens(table, v4("203.0.113.2"), 11.5) == 1
    assert table.spend(v4("192.0.2.1"), 10.0).allowed
    assert tokens(table, v4("192.0.2.1"), 10.0) == 1
    assert len(table) == 4


def test_clients_with_a_coarse_prefix_of_their_own_share_nothing_finer() -> None:
    """A client with a /32 of its own shares no bucket until a /16 is shared."""
    table = filled(900)
    client = v6("2001:db8::", 32)
    table.spend(client, 0.0)
    assert tokens(table, v6("2001:db9::", 32), 0.0) == 2
    assert tokens(table, client, 0.0) == 1


@given(
    steps=st.lists(
        st.tuples(
            st.one_of(st.just(0.0), st.floats(0.0, 4.0), st.floats(0.0, 1e-5), st.just(QUOTA.full_after_s)),
            st.integers(0, 4),
            st.booleans(),
        ),
        max_size=80,
    ),
    start=st.floats(0.0, 1e6),
)
def test_forgetting_grants_nothing(steps: list[tuple[float, int, bool]], start: float) -> None:
    """A table that sweeps at any moments decides exactly like one that never forgets."""
    table, reference, now = buckets(QUOTA), NeverEvicting(QUOTA), start
    for step_s, number, sweeps in steps:
        now += step_s
        if sweeps:
            table.sweep(now)
        assert table.spend(scan(number), now).allowed == reference.spend(scan(number), now)


CROWDS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.4, 1.0, QUOTA.full_after_s, QUOTA.full_after_s + 1.0]),
        st.integers(0, 120),
        st.lists(st.sampled_from(["203.0.113.1", "203.0.113.2", "203.0.112.1", "203.1.0.1", "204.0.0.1"]), max_size=4),
        st.booleans(),
    ),
    max_size=25,
)


@given(crowds=CROWDS, slice_size=st.sampled_from([2, 40, 20_000]), size=st.sampled_from([700, 860, 930, 990]))
def test_sharing_grants_nothing_and_memory_is_bounded(
    crowds: list[tuple[float, int, list[str], bool]], slice_size: int, size: int
) -> None:
    """Under any flood sharing admits no more than separate buckets would, in bounded memory."""
    table, reference, now, scanned = filled(size, QUOTA), NeverEvicting(QUOTA), 0.0, size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets_module, "SWEEP_SLICE", slice_size)
        for step_s, new_clients, clients, sweeps in crowds:
            now += step_s
            if sweeps:
                table.sweep(now)
            for number in range(scanned, scanned + new_clients):
                table.spend(scan(number), now)
                table.spend(v6(f"{number:x}::"), now)
            scanned += new_clients
            for client in clients:
                wait_s = table.wait_s(v4(client), now)
                assert table.spend(v4(client), now).retry_after_s == wait_s
                assert wait_s or reference.spend(v4(client), now)
            assert len(table) <= table.max_tracked


def test_the_level_of_a_bucket() -> None:
    """It has the tokens that can be taken, the wait where there are none, and the key that the bucket belongs to."""
    table = buckets(QUOTA)
    key = v4("192.0.2.1")
    assert table.level(key, 0.0) == Level(QUOTA, QUOTA.burst, 0.0, key, 0.0)
    assert len(table) == 0
    for taken in range(1, QUOTA.burst + 1):
        table.spend(key, 0.0)
        assert table.level(key, 0.0).tokens == QUOTA.burst - taken
    level = table.level(key, 0.0)
    assert level.wait_s == table.wait_s(key, 0.0) > 0
    assert (level.full_s, level.owes, level.elsewhere) == (QUOTA.full_after_s, 0, 0)
    assert table.level(key, QUOTA.full_after_s).full_s == 0.0


def test_a_price_that_is_known_afterwards() -> None:
    """It is charged whether the tokens are there or not, as far as a debt may go."""
    key, interval_s = v4("192.0.2.1"), QUOTA.emission_interval_s
    for debt_s, owes in ((0.0, 0), (2.5 * interval_s, 3), (9 * interval_s, 4)):
        table = Buckets(QUOTA, Tracking(MIN_TRACKED, ADDRESS_LADDER), debt_s)
        table.charge(key, QUOTA.burst - 1, 0.0)
        assert table.level(key, 0.0).tokens == 1
        table.charge(key, 5, 0.0)
        assert table.level(key, 0.0).owes == owes
        assert table.wait_s(key, 0.0) == pytest.approx(min(debt_s, 4 * interval_s) + interval_s)
        assert not table.spend(key, 0.0).allowed


def test_the_level_of_a_shared_bucket() -> None:
    """Where there is no room for a bucket, the level is that of the one that is shared, by its key."""
    table = filled(MIN_TRACKED * 3 // 4)
    key = v4("203.0.113.9")
    assert table.level(key, 0.0).key == coarser(key, 24)
