"""The buckets that quotas are kept in: tables by client, prefix or key, and single ones. PURE.

Each ``of_...`` takes the table that there is, and returns the one that a quota needs from now on, with at most ``most``
keys: the same with its buckets if it has that quota, else a new one. Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from typing import Final, TypeAlias, TypeVar

from pyryrelay.guard import (
    ADDRESS_LADDER,
    AddressKey,
    Buckets,
    ClientAddress,
    ClusterBuckets,
    HashedDict,
    HashLadder,
    Quota,
    ShardedDict,
    SortedTable,
    decide,
)

__all__ = [
    "Bucket",
    "ClientBuckets",
    "KeyBuckets",
    "SharedBucket",
    "key_of",
    "of_clients",
    "of_keys",
    "of_prefixes",
    "of_work",
    "spend",
]

_UNKNOWN: Final[AddressKey] = 0
"""The key of clients without an address: no address has it."""
_KEY_LADDER: Final = HashLadder([bytes([number]) for number in range(64)])

K = TypeVar("K", AddressKey, bytes)

ClientBuckets: TypeAlias = Buckets[AddressKey]
KeyBuckets: TypeAlias = Buckets[bytes]


def key_of(client: ClientAddress | None) -> AddressKey:
    """Return the key of a client; all whose address is unknown have one."""
    return _UNKNOWN if client is None else client.key


class Bucket:
    """One bucket for everybody, or for one connection, without a table."""

    __slots__ = ("tat",)

    def __init__(self) -> None:
        self.tat: float | None = None

    def wait_s(self, quota: Quota, now: float, cost: int = 1) -> float:
        """Return the seconds until so many tokens are there; 0 if they are now."""
        return decide(quota, self.tat, now, cost).retry_after_s

    def spend(self, quota: Quota, now: float, cost: int = 1) -> None:
        """Take tokens, which are there."""
        self.tat = decide(quota, self.tat, now, cost).tat


class SharedBucket(Bucket):
    """One bucket for everybody in several processes. ``spent`` are the tokens that the others were not told of."""

    __slots__ = ("spent",)

    def __init__(self) -> None:
        super().__init__()
        self.spent = 0

    def spend(self, quota: Quota, now: float, cost: int = 1) -> None:
        """Take tokens, which are there."""
        super().spend(quota, now, cost)
        self.spent += cost

    def absorb(self, quota: Quota, tokens: int, now: float) -> None:
        """Take tokens that were spent in another process, whether they are there or not; up to two full buckets."""
        tat = max(now, self.tat or now) + tokens * quota.emission_interval_s
        self.tat = min(tat, now + 2 * quota.full_after_s)


def spend(table: ClientBuckets | None, client: ClientAddress | None, now: float) -> bool:
    """Spend a token of a client; True if there was one, or the quota is off."""
    return table is None or table.spend(key_of(client), now).allowed


def _kept(table: Buckets[K] | None, quota: Quota, most: int) -> Buckets[K] | None:
    """Return a table with that quota, if this is one, with another bound."""
    if table is None or table.quota != quota:
        return None
    table.resize(most)
    return table


def of_clients(table: ClientBuckets | None, quota: Quota | None, most: int) -> ClientBuckets | None:
    """Return the table of a quota of clients, None if it is off."""
    if quota is None:
        return None
    kept = _kept(table, quota, most)
    return Buckets(quota, most, ADDRESS_LADDER, ShardedDict) if kept is None else kept


def of_prefixes(table: ClientBuckets | None, quota: Quota | None, most: int) -> ClientBuckets | None:
    """Return the table of a quota of prefixes, None if it is off."""
    if quota is None:
        return None
    kept = _kept(table, quota, most)
    return Buckets(quota, most, ADDRESS_LADDER, SortedTable) if kept is None else kept


def of_keys(table: KeyBuckets | None, quota: Quota | None, most: int, *, is_shared: bool) -> KeyBuckets | None:
    """Return the table of a quota of public keys or hashes, None if it is off.

    ``is_shared`` says that several processes spend its tokens, as public keys are served by any of them.
    """
    if quota is None:
        return None
    kept = _kept(table, quota, most)
    if kept is not None:
        return kept
    return (ClusterBuckets if is_shared else Buckets)(quota, most, _KEY_LADDER, HashedDict)


def of_work(
    table: ClusterBuckets[AddressKey] | None, quota: Quota | None, most: int
) -> ClusterBuckets[AddressKey] | None:
    """Return the table of work, whose buckets can go into debt: the price of a query is known afterwards."""
    if quota is None:
        return None
    if table is not None and table.quota == quota:
        table.resize(most)
        return table
    return ClusterBuckets(quota, most, ADDRESS_LADDER, ShardedDict)
