"""Ladders for keys without structure: new keys of a full table share few buckets, in bounded memory."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.errors import LimitError
from pyryrelay.guard.rate import buckets as buckets_module
from pyryrelay.guard.rate.buckets import MIN_TRACKED, Buckets, Tracking
from pyryrelay.guard.rate.gcra import decide
from pyryrelay.guard.rate.ladder import MAX_LAST_KEYS, HashLadder
from pyryrelay.guard.rate.quota import Quota

SLOW = Quota.parse("1/day burst 2")
QUOTA = Quota.parse("1/second burst 3")
SHARED_KEYS = [bytes([number]) for number in range(MAX_LAST_KEYS)]


def pubkey(number: int) -> bytes:
    """Return the n-th key of 32 bytes."""
    return blake2b(number.to_bytes(8), digest_size=32).digest()


def last_bits(key: bytes) -> int:
    """Return a hash that is the same in every process."""
    return key[-1]


def filled(ladder: HashLadder[bytes], quota: Quota = SLOW) -> Buckets[bytes]:
    """Return buckets of at most 1000 keys without room for another one."""
    table = Buckets(quota, Tracking(MIN_TRACKED, ladder))
    for number in range(MIN_TRACKED - ladder.last_keys):
        table.spend(pubkey(number), 0.0)
    assert len(table) == MIN_TRACKED - ladder.last_keys
    return table


@pytest.mark.parametrize(
    ("shared", "named"),
    [([], "0 shared"), ([bytes([number]) for number in range(129)], "129 shared"), ([b"a", b"a"], "b'a'")],
)
def test_shared_keys_that_cannot_be_meant(shared: list[bytes], named: str) -> None:
    """No key at all, too many of them, or a repeated one is an error."""
    with pytest.raises(LimitError, match=named):
        HashLadder(shared)


@given(key=st.binary(max_size=40), count=st.integers(1, MAX_LAST_KEYS))
def test_a_key_always_shares_the_same_bucket(key: bytes, count: int) -> None:
    """There is one step, and the hash chooses the bucket in it."""
    ladder = HashLadder(SHARED_KEYS[:count])
    assert ladder(key) == ladder(key) == (SHARED_KEYS[hash(key) % count],)
    assert (ladder.steps, ladder.last_keys) == (1, count)


def test_public_keys_have_buckets_of_their_own() -> None:
    """While there is room, each key has a bucket of its own."""
    table = Buckets(SLOW, Tracking(MIN_TRACKED, HashLadder([b"rest"])))
    assert [table.spend(pubkey(1), 0.0).allowed for _ in range(3)] == [True, True, False]
    assert table.wait_s(pubkey(2), 0.0) == 0.0
    assert table.spend(pubkey(2), 0.0).allowed
    key, tat, wait_s = place = table.next_place(pubkey(1), 0.0)
    assert (key, wait_s) == (pubkey(1), SLOW.emission_interval_s)
    table.reserve(place, wait_s, wait_s)
    assert table.next_place(pubkey(1), 0.0)[1:] > (tat, wait_s)


def test_without_room_new_keys_share_by_hash() -> None:
    """Known keys keep their bucket; new ones share that of their hash, and other hashes are not affected."""
    table = filled(HashLadder(SHARED_KEYS[:64], last_bits))
    one, same, other = bytes(31) + b"\x01", bytes(31) + b"\x41", bytes(31) + b"\x02"
    assert [table.spend(key, 0.0).allowed for key in (one, same, one, same)] == [True, True, False, False]
    assert table.spend(other, 0.0).allowed
    assert table.spend(pubkey(7), 0.0).allowed
    assert len(table) == MIN_TRACKED - 62


def test_a_debt_of_a_shared_bucket_is_inherited() -> None:
    """A key that emptied the shared bucket gets no full one of its own when there is room again."""
    table = filled(HashLadder([b"rest"]))
    assert [table.spend(pubkey(number), 0.0).allowed for number in (2_000, 2_001, 2_002)] == [True, True, False]
    table.resize(4_000)
    assert not table.spend(pubkey(2_000), 0.0).allowed
    assert table.spend(pubkey(2_003), SLOW.emission_interval_s).allowed
    assert not table.spend(pubkey(2_003), SLOW.emission_interval_s).allowed


@given(
    crowds=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.4, 1.0, QUOTA.full_after_s, QUOTA.full_after_s + 1.0]),
            st.integers(0, 300),
            st.lists(st.integers(0, 1_100), max_size=5),
            st.booleans(),
        ),
        max_size=20,
    ),
    count=st.sampled_from([1, 64, 128]),
    slice_size=st.sampled_from([2, 20_000]),
)
def test_sharing_grants_nothing_and_memory_is_bounded(
    crowds: list[tuple[float, int, list[int], bool]], count: int, slice_size: int
) -> None:
    """Under a flood of invented keys sharing admits no more than separate buckets would, in bounded memory."""
    table = Buckets(QUOTA, Tracking(MIN_TRACKED, HashLadder([*range(count)])))
    tats, now, invented = dict[int, float](), 0.0, 10_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets_module, "SWEEP_SLICE", slice_size)
        for number in range(500, 500 + MIN_TRACKED):
            table.spend(number, now)
        for step_s, new_keys, keys, sweeps in crowds:
            now += step_s
            if sweeps:
                table.sweep(now)
            for number in range(invented, invented + new_keys):
                table.spend(number, now)
            invented += new_keys
            for key in (2_000 + number for number in keys):
                if table.spend(key, now).allowed:
                    decision = decide(QUOTA, tats.get(key), now)
                    assert decision.allowed
                    tats[key] = decision.tat
            assert len(table) <= MIN_TRACKED
