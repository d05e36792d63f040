"""The quotas of the relay: of clients, their prefixes and connections, of authors, kinds and contents. PURE.

Clients are counted as the guard counts them: by address, IPv6 by /64, and prefixes by /24 or /48. All clients whose
address is unknown are one. Authors and authenticated keys are counted by their 32 bytes. Tables are bounded; see
`pyryrelay.guard.rate.buckets`.

A relay of several workers: clients, prefixes and connections are each served by one of them, but an author, a content
and the relay as a whole by all. What is spent of those quotas is exchanged (`NostrQuotas.changes`,
`NostrQuotas.absorb`). A cluster of relays shares all quotas but those of connections (`NostrQuotas.cluster_tables`),
since any relay may serve a client. See `pyryrelay.guard.rate.cluster_buckets` and
`pyryrelay.guard.rate.worker_buckets` for what that can let through.

Invariants: what is refused has spent nothing, whichever quota refused it. Ephemeral events and others have buckets of
their own everywhere. Callers do not charge exempt clients.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pyryrelay.guard import AddressKey, ClientAddress, ClusterBuckets, Level, Spent, WorkerBuckets, covering_prefix
from pyryrelay.guard.rate.buckets import MIN_TRACKED, SWEEP_SLICE
from pyryrelay.guard.rate.ledger import Ledger
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.policies.quotas.events import AUTHORS, OF_RELAY, EventQuotas
from pyryrelay.nostr.policies.quotas.queries import QueryQuotas
from pyryrelay.nostr.policies.quotas.subscriptions import OpenSubscriptions
from pyryrelay.nostr.policies.quotas.tables import THE_RELAY, ClientBuckets, KeyBuckets, Sharing, of_clients, spend
from pyryrelay.nostr.policies.refusal import TOO_MANY_AUTHS, Refused

__all__ = ["Change", "NostrQuotas"]

DEFAULT_TRACKED: Final = 250_000
"""Keys in each table, unless `NostrQuotas.configure` is given another number."""


class Change(NamedTuple):
    """What was spent of one quota: so many ``tokens`` of each key."""

    quota: str
    keys: Sequence[bytes]
    tokens: Sequence[int]


class NostrQuotas:
    """All quotas of one relay. Configure it before anything else."""

    def __init__(self) -> None:
        """Start with every quota off."""
        self.events = EventQuotas()
        self.queries = QueryQuotas()
        self.subscriptions = OpenSubscriptions()
        self._invalid: ClientBuckets | None = None
        self._auths: ClientBuckets | None = None
        self._tables: list[ClientBuckets | KeyBuckets] = []
        self._sharing = Sharing()
        self._with_workers: dict[str, ClusterBuckets[bytes]] = {}
        self._with_cluster: dict[str, ClusterBuckets[Any]] = {}

    def share(self, sharing: Sharing) -> None:
        """Share quotas with other workers, with a cluster, or both; call it before `configure`."""
        self._sharing = sharing

    def configure(self, options: NostrOptions, max_tracked: int = DEFAULT_TRACKED) -> None:
        """Enforce these options from now on, with at most ``max_tracked`` keys in each table.

        A quota that is the same keeps its buckets; one that is new starts with full ones.
        """
        most = max(max_tracked, MIN_TRACKED)
        of_one = Sharing(with_cluster=self._sharing.with_cluster)
        self.events.configure(options, most, self._sharing, of_one)
        self.queries.configure(options, most, of_one)
        self.subscriptions.configure(options)
        self._invalid = of_clients(self._invalid, options.nostr_invalid_quota, most, of_one)
        self._auths = of_clients(self._auths, options.nostr_auth_quota, most, of_one)
        self._list_tables()

    def _list_tables(self) -> None:
        """List the tables that there are, those of workers and of the cluster by the name of their quota."""
        of_all = self.events.tables_of_all()
        everything: dict[str, ClientBuckets | KeyBuckets | None] = {**of_all, **self._tables_of_one()}
        self._tables = [table for table in everything.values() if table is not None]
        if self._sharing.with_workers is not None:
            self._with_workers = {name: table for name, table in of_all.items() if isinstance(table, ClusterBuckets)}
        if self._sharing.with_cluster is not None:
            shared = {name: table for name, table in everything.items() if isinstance(table, ClusterBuckets)}
            self._with_cluster = {f"nostr-{name}": table for name, table in shared.items()}

    def _tables_of_one(self) -> Mapping[str, ClientBuckets | None]:
        """Return the tables of clients and prefixes by the name of their quota."""
        return {
            **self.events.tables_of_one(),
            **self.queries.tables(),
            "invalid": self._invalid,
            "auth": self._auths,
        }

    @property
    def tracked(self) -> int:
        """Number of keys that take memory; a gauge."""
        return sum(map(len, self._tables)) + len(self.subscriptions)

    def sweep(self, now: float) -> None:
        """Forget full buckets; call it about once a second. All tables together take about 2 ms at most."""
        most = max(MIN_TRACKED // 4, SWEEP_SLICE // (len(self._tables) or 1))
        for table in self._tables:
            table.sweep(now, most)

    # What operators see

    def client_levels(self, key: AddressKey, now: float) -> dict[str, Level[AddressKey]]:
        """Return what a client and its prefix may spend, by the name of the quota, of those that are on."""
        prefix = covering_prefix(key)
        return {
            name: table.level(prefix if name.endswith("-prefix") else key, now)
            for name, table in self._tables_of_one().items()
            if table is not None
        }

    def key_levels(self, key: bytes, now: float) -> dict[str, Level[bytes]]:
        """Return what a public key of 32 bytes may spend, in the same way."""
        return self._levels_of_all(AUTHORS, key, now)

    def relay_levels(self, now: float) -> dict[str, Level[bytes]]:
        """Return what all clients together may spend, in the same way."""
        return self._levels_of_all(OF_RELAY, THE_RELAY, now)

    def _levels_of_all(self, names: Sequence[str], key: bytes, now: float) -> dict[str, Level[bytes]]:
        tables = self.events.tables_of_all()
        return {name: table.level(key, now) for name in names if (table := tables[name]) is not None}

    # Errors and authentication

    def spend_invalid(self, client: ClientAddress | None, now: float) -> bool:
        """Spend a token for something invalid; False if the client has none left."""
        return spend(self._invalid, client, now)

    def spend_auth(self, client: ClientAddress | None, now: float) -> Refused | None:
        """Spend a token for an AUTH, or return the refusal."""
        return None if spend(self._auths, client, now) else TOO_MANY_AUTHS()

    # Other workers, and the cluster

    def cluster_tables(self) -> Mapping[str, ClusterBuckets[Any]]:
        """Return the buckets that a cluster shares, by the name of their quota. `configure` may replace them."""
        return self._with_cluster

    def changes(self, most: int = 200) -> list[Change]:
        """Return what was spent here since the last call and other workers share, of at most ``most`` keys each."""
        changes = []
        for name, table in self._with_workers.items():
            spent = _ledger(table).take(most)
            if spent:
                changes.append(Change(name, [key for key, _ in spent], [tokens for _, tokens in spent]))
        return changes

    @property
    def has_changes(self) -> bool:
        """Whether something was spent that `changes` has not returned yet."""
        return any(len(_ledger(table)) for table in self._with_workers.values())

    def absorb(self, quota: str, keys: Sequence[bytes], tokens: Sequence[int], now: float) -> None:
        """Take what was spent in another worker, whether it is there or not. A quota that is off here is ignored."""
        table = self._with_workers.get(quota)
        if table is not None:
            table.absorb(map(Spent, keys, tokens), now)


def _ledger(table: ClusterBuckets[bytes]) -> Ledger[bytes]:
    """Return what other workers are to be told."""
    return table.for_workers if isinstance(table, WorkerBuckets) else table.ledger
