"""The buckets that quotas are kept in: tables by client, prefix or key, and single ones. PURE.

Each ``of_...`` takes the table that there is, and returns the one that a quota needs from now on, with at most ``most``
keys: the same with its buckets if it has that quota, else a new one. A `Sharing` says who else spends its tokens.
Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from pyryrelay.guard import (
    ADDRESS_LADDER,
    AddressKey,
    Buckets,
    ClientAddress,
    ClusterBuckets,
    HashedDict,
    HashLadder,
    Ladder,
    Quota,
    ShardedDict,
    SortedTable,
    Table,
    Tracking,
    WorkerBuckets,
    decide,
)

__all__ = [
    "ALONE",
    "THE_RELAY",
    "Bucket",
    "ClientBuckets",
    "ConnectionQuotas",
    "KeyBuckets",
    "OnSpent",
    "Sharing",
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
OnSpent: TypeAlias = Callable[[], object]

THE_RELAY: Final = b""
"""The key of the bucket of the whole relay."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who is told what was spent of a quota: the other workers of this relay, the other relays of the cluster, or both.

    Each is what to call when there is something to tell again; None if there are no others. What is served by one
    worker alone, such as a client, is shared with the cluster alone.
    """

    with_workers: OnSpent | None = None
    with_cluster: OnSpent | None = None


ALONE: Final = Sharing()


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


class ConnectionQuotas:
    """The buckets of one connection."""

    __slots__ = ("ephemerals", "events", "filters")

    def __init__(self) -> None:
        """Start with full buckets; they take memory only when they are used."""
        self.events: Bucket | None = None
        self.ephemerals: Bucket | None = None
        self.filters: Bucket | None = None


def spend(table: ClientBuckets | None, client: ClientAddress | None, now: float) -> bool:
    """Spend a token of a client; True if there was one, or the quota is off."""
    return table is None or table.spend(key_of(client), now).allowed


def _kept(table: Buckets[K] | None, quota: Quota, most: int) -> Buckets[K] | None:
    """Return a table with that quota, if this is one, with another bound."""
    if table is None or table.quota != quota:
        return None
    table.resize(most)
    return table


def _made(
    quota: Quota, most: int, ladder: Ladder[K], new_table: Callable[[], Table[K, float]], sharing: Sharing
) -> Buckets[K]:
    """Return a table with full buckets, of the kind that is shared so."""
    tracking = Tracking(most, ladder, new_table)
    with_workers, with_cluster = sharing.with_workers, sharing.with_cluster
    if with_workers is None and with_cluster is None:
        return Buckets(quota, tracking)
    if with_workers is None or with_cluster is None:
        table = ClusterBuckets(quota, tracking)
        table.ledger.on_change = with_workers or with_cluster or table.ledger.on_change
        return table
    both = WorkerBuckets(quota, tracking)
    both.ledger.on_change, both.for_workers.on_change = with_cluster, with_workers
    return both


def of_clients(
    table: ClientBuckets | None, quota: Quota | None, most: int, sharing: Sharing = ALONE
) -> ClientBuckets | None:
    """Return the table of a quota of clients, None if it is off."""
    if quota is None:
        return None
    kept = _kept(table, quota, most)
    return _made(quota, most, ADDRESS_LADDER, ShardedDict, sharing) if kept is None else kept


def of_prefixes(
    table: ClientBuckets | None, quota: Quota | None, most: int, sharing: Sharing = ALONE
) -> ClientBuckets | None:
    """Return the table of a quota of prefixes, None if it is off."""
    if quota is None:
        return None
    kept = _kept(table, quota, most)
    return _made(quota, most, ADDRESS_LADDER, SortedTable, sharing) if kept is None else kept


def of_keys(table: KeyBuckets | None, quota: Quota | None, most: int, sharing: Sharing = ALONE) -> KeyBuckets | None:
    """Return the table of a quota of public keys, of hashes, or of the whole relay (`THE_RELAY`); None if it is off."""
    if quota is None:
        return None
    kept = _kept(table, quota, most)
    return _made(quota, most, _KEY_LADDER, HashedDict, sharing) if kept is None else kept


def of_work(
    table: ClientBuckets | None, quota: Quota | None, most: int, with_cluster: OnSpent | None = None
) -> ClientBuckets | None:
    """Return the table of work, whose buckets can go into debt: the price of a query is known afterwards."""
    if quota is None:
        return None
    if table is not None and table.quota == quota:
        table.resize(most)
        return table
    tracking = Tracking(most, ADDRESS_LADDER, ShardedDict)
    if with_cluster is None:
        return Buckets(quota, tracking, quota.full_after_s)
    made = ClusterBuckets(quota, tracking)
    made.ledger.on_change = with_cluster
    return made
