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
from hashlib import sha256
from typing import Any, Final, NamedTuple

from pyryrelay.guard import (
    AddressKey,
    ClientAddress,
    ClusterBuckets,
    Quota,
    Spent,
    WorkerBuckets,
    covering_prefix,
)
from pyryrelay.guard.rate.buckets import MIN_TRACKED, SWEEP_SLICE
from pyryrelay.guard.rate.ledger import Ledger
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.options.types.rules import KindQuota
from pyryrelay.nostr.policies.refusal import (
    REPEATED,
    TOO_MANY_AUTHS,
    TOO_MANY_COUNTS,
    TOO_MANY_EVENTS,
    TOO_MANY_OF_KEY,
    TOO_MANY_OPEN_VALUES,
    TOO_MANY_REQUESTS,
    TOO_MANY_SUBSCRIPTIONS,
    Refused,
    wait_text_s,
)
from pyryrelay.nostr.policies.tables import (
    THE_RELAY,
    Bucket,
    ClientBuckets,
    KeyBuckets,
    Sharing,
    key_of,
    of_clients,
    of_keys,
    of_prefixes,
    of_work,
    spend,
)

__all__ = ["Change", "ConnectionQuotas", "NostrQuotas"]

DEFAULT_TRACKED: Final = 250_000
"""Keys in each table, unless `NostrQuotas.configure` is given another number."""

REPEATABLE_CHARS: Final = 32
"""Shorter contents may be repeated: greetings, reactions."""

_CONTENT_HASH_BYTES: Final = 16


class Change(NamedTuple):
    """What was spent of one quota: so many ``tokens`` of each key."""

    quota: str
    keys: Sequence[bytes]
    tokens: Sequence[int]


class ConnectionQuotas:
    """The buckets of one connection."""

    __slots__ = ("ephemerals", "events", "filters")

    def __init__(self) -> None:
        """Start with full buckets; they take memory only when they are used."""
        self.events: Bucket | None = None
        self.ephemerals: Bucket | None = None
        self.filters: Bucket | None = None


class _EventBuckets:
    """The buckets of one of the two kinds of events: ephemeral ones, and all others."""

    __slots__ = ("author", "by_client", "by_prefix", "relay")

    def __init__(self) -> None:
        self.by_client: ClientBuckets | None = None
        self.by_prefix: ClientBuckets | None = None
        self.author: KeyBuckets | None = None
        self.relay: KeyBuckets | None = None


class NostrQuotas:
    """All quotas of one relay. Configure it before anything else."""

    def __init__(self) -> None:
        """Start with every quota off."""
        self._events, self._ephemerals = _EventBuckets(), _EventBuckets()
        self._authed: KeyBuckets | None = None
        self._contents: KeyBuckets | None = None
        self._kinds: dict[KindQuota, ClientBuckets] = {}
        self._invalid: ClientBuckets | None = None
        self._auths: ClientBuckets | None = None
        self._filters: ClientBuckets | None = None
        self._counts: ClientBuckets | None = None
        self._work: ClientBuckets | None = None
        self._subscriptions: dict[AddressKey, int] = {}
        self._values: dict[AddressKey, int] = {}
        self._of_connection: Quota | None = None
        self._filters_of_connection: Quota | None = None
        self._max_subscriptions: int | None = None
        self._max_values: int | None = None
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
        with_cluster = self._sharing.with_cluster
        of_one = Sharing(with_cluster=with_cluster)
        self._configure_events(options, most, of_one)
        self._configure_authors(options, most)
        self._invalid = of_clients(self._invalid, options.nostr_invalid_quota, most, of_one)
        self._auths = of_clients(self._auths, options.nostr_auth_quota, most, of_one)
        self._filters = of_clients(self._filters, options.nostr_req_quota, most, of_one)
        self._counts = of_clients(self._counts, options.nostr_count_quota, most, of_one)
        self._work = of_work(self._work, options.nostr_work_quota, most, with_cluster)
        self._filters_of_connection = options.nostr_connection_req_quota
        self._max_subscriptions = options.nostr_max_subscriptions_per_address
        self._max_values = options.nostr_max_open_values_per_address
        self._list_tables()

    def _configure_events(self, options: NostrOptions, most: int, of_one: Sharing) -> None:
        """Configure what clients may publish, each of whom one worker serves."""
        stored, ephemeral = self._events, self._ephemerals
        stored.by_client = of_clients(stored.by_client, options.nostr_event_quota, most, of_one)
        stored.by_prefix = of_prefixes(stored.by_prefix, options.nostr_event_prefix_quota, most, of_one)
        ephemeral.by_client = of_clients(ephemeral.by_client, options.nostr_ephemeral_quota, most, of_one)
        ephemeral.by_prefix = of_prefixes(ephemeral.by_prefix, options.nostr_ephemeral_prefix_quota, most, of_one)
        kinds = (
            (rule, of_clients(self._kinds.get(rule), rule.quota, most, of_one)) for rule in options.nostr_kind_quota
        )
        self._kinds = {rule: buckets for rule, buckets in kinds if buckets is not None}
        self._of_connection = options.nostr_connection_event_quota

    def _configure_authors(self, options: NostrOptions, most: int) -> None:
        """Configure what all workers spend."""
        stored, ephemeral, sharing = self._events, self._ephemerals, self._sharing
        stored.author = of_keys(stored.author, options.nostr_pubkey_quota, most, sharing)
        ephemeral.author = of_keys(ephemeral.author, options.nostr_ephemeral_pubkey_quota, most, sharing)
        self._authed = of_keys(self._authed, options.nostr_authed_quota, most, sharing)
        self._contents = of_keys(self._contents, options.nostr_repeat_quota, most, sharing)
        stored.relay = of_keys(stored.relay, options.nostr_relay_event_quota, most, sharing)
        ephemeral.relay = of_keys(ephemeral.relay, options.nostr_relay_event_quota, most, sharing)

    def _list_tables(self) -> None:
        """List the tables that there are, those of workers and of the cluster by the name of their quota."""
        stored, ephemeral = self._events, self._ephemerals
        of_all: dict[str, KeyBuckets | None] = {
            "author": stored.author,
            "ephemeral-author": ephemeral.author,
            "authed": self._authed,
            "content": self._contents,
            "relay": stored.relay,
            "ephemeral-relay": ephemeral.relay,
        }
        of_one: dict[str, ClientBuckets | None] = {
            "event": stored.by_client,
            "event-prefix": stored.by_prefix,
            "ephemeral": ephemeral.by_client,
            "ephemeral-prefix": ephemeral.by_prefix,
            "invalid": self._invalid,
            "auth": self._auths,
            "req": self._filters,
            "count": self._counts,
            "work": self._work,
            **{f"kinds {rule}": table for rule, table in self._kinds.items()},
        }
        everything: dict[str, ClientBuckets | KeyBuckets | None] = {**of_all, **of_one}
        self._tables = [table for table in everything.values() if table is not None]
        if self._sharing.with_workers is not None:
            self._with_workers = {name: table for name, table in of_all.items() if isinstance(table, ClusterBuckets)}
        if self._sharing.with_cluster is not None:
            shared = {name: table for name, table in everything.items() if isinstance(table, ClusterBuckets)}
            self._with_cluster = {f"nostr-{name}": table for name, table in shared.items()}

    @property
    def tracked(self) -> int:
        """Number of keys that take memory; a gauge."""
        return sum(map(len, self._tables)) + len(self._subscriptions)

    def sweep(self, now: float) -> None:
        """Forget full buckets; call it about once a second. All tables together take about 2 ms at most."""
        most = max(MIN_TRACKED // 4, SWEEP_SLICE // (len(self._tables) or 1))
        for table in self._tables:
            table.sweep(now, most)

    # Events

    def spend_event(
        self,
        client: ClientAddress | None,
        event: Event,
        connection: ConnectionQuotas,
        now: float,
        keys: frozenset[str] = frozenset(),
    ) -> Refused | None:
        """Spend a token for an event in each quota of step 9, or return the refusal and spend nothing.

        ``keys`` are those that the connection has authenticated: with ``--nostr-authed-quota``, they are charged later
        and the client address is not.
        """
        key = key_of(client)
        is_ephemeral = 20_000 <= event.kind < 30_000
        buckets = self._ephemerals if is_ephemeral else self._events
        by_client = None if keys and self._authed is not None else buckets.by_client
        by_prefix = buckets.by_prefix
        wait_s = by_client.wait_s(key, now) if by_client is not None else 0.0
        if by_prefix is not None:
            prefix = covering_prefix(key)
            wait_s = max(wait_s, by_prefix.wait_s(prefix, now))
        of_connection, of_relay = self._of_connection, buckets.relay
        own = None
        if of_connection is not None:
            own = _own_bucket(connection, is_ephemeral)
            wait_s = max(wait_s, own.wait_s(of_connection, now))
        if of_relay is not None:
            wait_s = max(wait_s, of_relay.wait_s(THE_RELAY, now))
        of_kind = [table for rule, table in self._kinds.items() if event.kind in rule.kinds] if self._kinds else ()
        for table in of_kind:
            wait_s = max(wait_s, table.wait_s(key, now))
        if wait_s:
            return TOO_MANY_EVENTS(wait_text_s(wait_s))
        if by_client is not None:
            by_client.spend(key, now)
        if by_prefix is not None:
            by_prefix.spend(prefix, now)
        if own is not None and of_connection is not None:
            own.spend(of_connection, now)
        if of_relay is not None:
            of_relay.spend(THE_RELAY, now)
        for table in of_kind:
            table.spend(key, now)
        return None

    def spend_author(self, event: Event, keys: frozenset[str], now: float) -> Refused | None:
        """Spend a token of the author and of the content (step 15), or return the refusal and spend nothing.

        With ``--nostr-authed-quota`` an authenticated key pays instead of the author: the author's own if it is one of
        ``keys``.
        """
        if keys and self._authed is not None:
            table: KeyBuckets | None = self._authed
            key = bytes.fromhex(event.pubkey if event.pubkey in keys else min(keys))
        else:
            table = (self._ephemerals if 20_000 <= event.kind < 30_000 else self._events).author
            key = bytes.fromhex(event.pubkey)
        contents = self._contents if len(event.content) >= REPEATABLE_CHARS else None
        wait_s = table.wait_s(key, now) if table is not None else 0.0
        if wait_s:
            return TOO_MANY_OF_KEY(wait_text_s(wait_s))
        if contents is not None:
            content = sha256(event.content.encode()).digest()[:_CONTENT_HASH_BYTES]
            if not contents.spend(content, now).allowed:
                return REPEATED()
        if table is not None:
            table.spend(key, now)
        return None

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

    # Queries

    def spend_filters(
        self, client: ClientAddress | None, count: int, connection: ConnectionQuotas, now: float
    ) -> Refused | None:
        """Spend a token for each of ``count`` filters of a REQ, or return the refusal and spend nothing."""
        key = key_of(client)
        of_connection, by_client = self._filters_of_connection, self._filters
        if of_connection is not None:
            own = connection.filters = connection.filters or Bucket()
            own_cost = min(count, of_connection.burst)
            wait_s = own.wait_s(of_connection, now, own_cost)
            if wait_s:
                return TOO_MANY_REQUESTS(wait_text_s(wait_s))
        if by_client is not None:
            decision = by_client.spend(key, now, min(count, by_client.quota.burst))
            if not decision.allowed:
                return TOO_MANY_REQUESTS(wait_text_s(decision.retry_after_s))
        if of_connection is not None:
            own.spend(of_connection, now, own_cost)
        return None

    def spend_count(self, client: ClientAddress | None, now: float) -> Refused | None:
        """Spend a token for a COUNT, or return the refusal."""
        return None if spend(self._counts, client, now) else TOO_MANY_COUNTS()

    def work_wait_s(self, client: ClientAddress | None, now: float) -> float:
        """Return the seconds until a client has paid for the work of its queries; 0 if it has."""
        key = key_of(client)
        return self._work.wait_s(key, now) if self._work is not None else 0.0

    def spend_work(self, client: ClientAddress | None, units: int, now: float) -> None:
        """Charge a client for work that was done, whether it has tokens for it or not."""
        if self._work is not None and units > 0:
            self._work.charge(key_of(client), units, now)

    def hold_subscription(self, client: ClientAddress | None, values: int = 0) -> Refused | None:
        """Count one more open subscription of a client, whose filters have so many values, or return the refusal.

        Release it once it is closed.
        """
        key = key_of(client)
        held, most = self._subscriptions.get(key, 0), self._max_subscriptions
        if most is not None and held >= most:
            return TOO_MANY_SUBSCRIPTIONS(most)
        if values:
            open_values, most = self._values.get(key, 0) + values, self._max_values
            if most is not None and open_values > most:
                return TOO_MANY_OPEN_VALUES(most)
            self._values[key] = open_values
        self._subscriptions[key] = held + 1
        return None

    def release_subscription(self, client: ClientAddress | None, count: int = 1, values: int = 0) -> None:
        """Count ``count`` subscriptions of a client less, with so many values together."""
        key = key_of(client)
        for table, less in ((self._subscriptions, count), (self._values, values)):
            if less:
                left = table.get(key, 0) - less
                if left > 0:
                    table[key] = left
                else:
                    table.pop(key, None)

    # Errors and authentication

    def spend_invalid(self, client: ClientAddress | None, now: float) -> bool:
        """Spend a token for something invalid; False if the client has none left."""
        return spend(self._invalid, client, now)

    def spend_auth(self, client: ClientAddress | None, now: float) -> Refused | None:
        """Spend a token for an AUTH, or return the refusal."""
        return None if spend(self._auths, client, now) else TOO_MANY_AUTHS()


def _own_bucket(connection: ConnectionQuotas, is_ephemeral: bool) -> Bucket:
    """Return a connection's bucket of events, which is made when it is needed."""
    if is_ephemeral:
        connection.ephemerals = connection.ephemerals or Bucket()
        return connection.ephemerals
    connection.events = connection.events or Bucket()
    return connection.events


def _ledger(table: ClusterBuckets[bytes]) -> Ledger[bytes]:
    """Return what other workers are to be told."""
    return table.for_workers if isinstance(table, WorkerBuckets) else table.ledger
