"""Tables of small pieces: they behave as a dict, and no piece gets big."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.keys import ADDRESS_LADDER, AddressKey, address_key, covering_prefix
from pyryrelay.guard.rate import tables as tables_module
from pyryrelay.guard.rate.buckets import MIN_TRACKED, Buckets, Tracking
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.tables import HashedDict, ShardedDict, SortedTable, Table

NewTable = Callable[[], Table[int, float]]
ALL: list[NewTable] = [ShardedDict, SortedTable, HashedDict]

FEW_KEYS = st.integers(2, 60)
WIDE_KEYS = st.sampled_from([2**63, 2**64 - 1, 2**64, 2**64 + 1, 2**66, 2**129, 2**129 + 1])
KEYS = FEW_KEYS | WIDE_KEYS
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.floats(allow_nan=False)),
        st.tuples(st.just("get"), KEYS, st.just(0.0)),
        st.tuples(st.just("pop"), KEYS, st.just(0.0)),
        st.tuples(st.just("drop"), st.integers(0, 8), st.just(0.0)),
    ),
    max_size=200,
)


def chunk_sizes(table: SortedTable) -> list[int]:
    """Return how many keys each chunk has."""
    return list(map(len, table._keys))


def check_order(table: SortedTable) -> None:
    """Check the table's invariants: sorted, consistent, within bounds, no empty chunk but the lowest, none too big."""
    keys = [key for chunk in table._keys for key in chunk]
    assert keys == sorted(set(keys))
    assert chunk_sizes(table) == list(map(len, table._values))
    assert len(table) == len(keys)
    assert len(table._bounds) == len(table._keys) - 1
    for bound, below, above in zip(table._bounds, table._keys, table._keys[1:], strict=False):
        assert max(below, default=0) < bound <= above[0]
    assert max(chunk_sizes(table)) <= tables_module._CHUNK_KEYS


@given(new_table=st.sampled_from(ALL), steps=STEPS)
def test_answers_as_a_dict_would(new_table: NewTable, steps: list[tuple[str, int, float]]) -> None:
    """Under any operations a table behaves as a dict; a drop chooses its keys, and their number is as asked."""
    table, reference = new_table(), dict[AddressKey, float]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables_module, "_CHUNK_KEYS", 4)
        for what, number, value in steps:
            if what == "set":
                table[number] = reference[number] = value
            elif what == "get":
                assert table.get(number) == reference.get(number)
            elif what == "pop":
                assert table.pop(number) == reference.pop(number, None)
            else:
                before = len(reference)
                table.drop(number)
                reference = {key: kept for key in reference if (kept := table.get(key)) is not None}
                assert len(reference) == max(0, before - number)
            assert len(table) == len(reference)
            if isinstance(table, SortedTable):
                check_order(table)
        assert {key: table.get(key) for key in reference} == reference


@pytest.mark.parametrize("new_table", ALL)
def test_drops_every_key_in_slices(new_table: NewTable) -> None:
    """A table of many pieces is freed in slices of any size, and can be filled again."""
    table = new_table()
    for _ in range(2):
        for key in range(2, 5_002):
            table[key] = 1.0
        for left in range(4_300, 0, -700):
            table.drop(700)
            assert len(table) == left
            assert sum(table.get(key) is not None for key in range(2, 5_002)) == left
        table.drop(700)
        assert len(table) == 0
        table.drop(1)


PATTERNS: dict[str, Callable[[int], AddressKey]] = {
    "neighbours": lambda number: address_key(IPv4Address((11 << 24) + number), 32),
    "one of each /24": lambda number: address_key(IPv4Address((11 << 24) + (number << 8)), 32),
    "one of each /64": lambda number: address_key(IPv6Address((0x20010DB8 << 96) + (number << 64)), 64),
    "one of each /48": lambda number: address_key(IPv6Address((0x20010DB8 << 96) + (number << 80)), 48),
    "whole addresses": lambda number: address_key(IPv6Address((0x20010DB8 << 96) + number), 128),
    "as many apart as there are dicts": lambda number: number * tables_module._SHARDS,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_dict_gets_big(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys with a pattern are spread over all dicts, even if they aim at a single one."""
    monkeypatch.setattr(tables_module, "_SALT", Random(1).getrandbits(128))
    table = ShardedDict[float]()
    for number in range(101 * 100):
        table[PATTERNS[pattern](number)] = 1.0
    sizes = list(map(len, table._shards))
    assert len(sizes) == 101
    assert max(sizes) < 100 * 10, sizes


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_hashed_dict_gets_big(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, bytes and texts with a pattern are spread by their hash."""
    monkeypatch.setattr(tables_module, "_HASH_SALT", Random(1).getrandbits(60))
    numbers, keys, texts = HashedDict[int, float](), HashedDict[bytes, float](), HashedDict[str, float]()
    for number in range(101 * 100):
        key = PATTERNS[pattern](number)
        numbers[key] = keys[key.to_bytes(32)] = texts[str(key)] = 1.0
    for sizes in (map(len, table._shards) for table in (numbers, keys, texts)):
        assert max(sizes) < 100 * 10


@pytest.mark.parametrize("step", [1, -1, 7_919])
def test_no_chunk_gets_big_or_stays_small(step: int) -> None:
    """In any order of keys, chunks are split when full, and are at least half full."""
    table, count = SortedTable(), 20_000
    for number in range(count):
        table[2 + number * step % count] = 1.0
    check_order(table)
    assert min(chunk_sizes(table)) >= tables_module._CHUNK_KEYS // 2


def test_a_chunk_without_keys_takes_no_memory() -> None:
    """A table whose keys were all taken out is as small as a new one."""
    table = SortedTable()
    for key in range(2, 5_002):
        table[key] = 1.0
    for key in range(2, 5_002):
        assert table.pop(key) == 1.0
    assert chunk_sizes(table) == [0]
    check_order(table)


def test_an_emptied_dict_takes_no_memory() -> None:
    """Memory is freed while a table is dropped, not at its end."""
    table = ShardedDict[float]()
    for key in range(2, 20_002):
        table[key] = 1.0
    table.drop(10_000)
    empty = {}.__sizeof__()
    assert sum(shard.__sizeof__() == empty for shard in table._shards) == sum(not shard for shard in table._shards) > 30


@pytest.mark.parametrize("ip", [IPv4Address("203.0.113.7"), IPv6Address("ffff:ffff:ffff:ffff::1")])
def test_prefixes_are_kept_in_eight_bytes(ip: IPv4Address | IPv6Address) -> None:
    """Keys of prefixes fit an array of eight bytes each; other keys are kept as well."""
    table = SortedTable()
    for bits in range(1, ip.max_prefixlen + 1):
        table[covering_prefix(address_key(ip, bits))] = 1.0
    assert all(isinstance(keys, array) for keys in table._keys)
    wide = address_key(IPv6Network("ffff::/64").network_address, 64)
    table[wide] = 2.0
    assert any(isinstance(keys, list) for keys in table._keys)
    assert table.get(wide) == 2.0


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0.0, 0.3, 1.0, 3.0, 4.0]), st.integers(0, 30), st.booleans(), st.booleans()),
        max_size=60,
    )
)
def test_buckets_are_the_same_in_either(steps: list[tuple[float, int, bool, bool]]) -> None:
    """The kind of table changes no decision, neither for addresses nor for prefixes."""
    quota, now = Quota.parse("1/second burst 3"), 0.0
    dicts = Buckets(quota, Tracking(MIN_TRACKED, ADDRESS_LADDER, ShardedDict))
    arrays = Buckets(quota, Tracking(MIN_TRACKED, ADDRESS_LADDER, SortedTable))
    for step_s, number, is_v6, sweeps in steps:
        now += step_s
        ip = IPv6Address(number << 64) if is_v6 else IPv4Address(number)
        key = address_key(ip, 64 if is_v6 else 32)
        if sweeps:
            dicts.sweep(now, 3)
            arrays.sweep(now, 3)
        assert dicts.wait_s(key, now) == arrays.wait_s(key, now)
        assert dicts.spend(key, now) == arrays.spend(key, now)
        assert len(dicts) == len(arrays)
