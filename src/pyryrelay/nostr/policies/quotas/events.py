"""The quotas of events: of clients, their prefixes and connections, of authors, kinds and contents. PURE.

Ephemeral events and others have buckets of their own everywhere. What is refused has spent nothing, whichever quota
refused it. Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from pyryrelay.guard import ClientAddress, Quota, covering_prefix
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.options.types.rules import KindQuota
from pyryrelay.nostr.policies.quotas.tables import (
    THE_RELAY,
    Bucket,
    ClientBuckets,
    ConnectionQuotas,
    KeyBuckets,
    Sharing,
    key_of,
    of_clients,
    of_keys,
    of_prefixes,
)
from pyryrelay.nostr.policies.refusal import REPEATED, TOO_MANY_EVENTS, TOO_MANY_OF_KEY, Refused, wait_text_s

__all__ = ["AUTHORS", "OF_RELAY", "REPEATABLE_CHARS", "EventQuotas"]

AUTHORS: Final = ("author", "ephemeral-author", "authed")
"""The quotas of public keys, by their names in `EventQuotas.tables_of_all`."""
OF_RELAY: Final = ("relay", "ephemeral-relay")
"""Those of the relay as a whole."""

REPEATABLE_CHARS: Final = 32
"""Shorter contents may be repeated: greetings, reactions."""

_CONTENT_HASH_BYTES: Final = 16


class _EventBuckets:
    """The buckets of one of the two kinds of events: ephemeral ones, and all others."""

    __slots__ = ("author", "by_client", "by_prefix", "relay")

    def __init__(self) -> None:
        self.by_client: ClientBuckets | None = None
        self.by_prefix: ClientBuckets | None = None
        self.author: KeyBuckets | None = None
        self.relay: KeyBuckets | None = None


class EventQuotas:
    """What may be published. Configure it before anything else."""

    def __init__(self) -> None:
        """Start with every quota off."""
        self._events, self._ephemerals = _EventBuckets(), _EventBuckets()
        self._authed: KeyBuckets | None = None
        self._contents: KeyBuckets | None = None
        self._kinds: dict[KindQuota, ClientBuckets] = {}
        self._of_connection: Quota | None = None

    def configure(self, options: NostrOptions, most: int, sharing: Sharing, of_one: Sharing) -> None:
        """Enforce these options: ``sharing`` says who else spends what all workers spend, ``of_one`` all else."""
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
        stored.author = of_keys(stored.author, options.nostr_pubkey_quota, most, sharing)
        ephemeral.author = of_keys(ephemeral.author, options.nostr_ephemeral_pubkey_quota, most, sharing)
        self._authed = of_keys(self._authed, options.nostr_authed_quota, most, sharing)
        self._contents = of_keys(self._contents, options.nostr_repeat_quota, most, sharing)
        stored.relay = of_keys(stored.relay, options.nostr_relay_event_quota, most, sharing)
        ephemeral.relay = of_keys(ephemeral.relay, options.nostr_relay_event_quota, most, sharing)

    def tables_of_all(self) -> Mapping[str, KeyBuckets | None]:
        """Return the tables of what all workers spend, by the name of their quota."""
        stored, ephemeral = self._events, self._ephemerals
        return {
            "author": stored.author,
            "ephemeral-author": ephemeral.author,
            "authed": self._authed,
            "content": self._contents,
            "relay": stored.relay,
            "ephemeral-relay": ephemeral.relay,
        }

    def tables_of_one(self) -> Mapping[str, ClientBuckets | None]:
        """Return the tables of clients, each of whom one worker serves, by the name of their quota."""
        stored, ephemeral = self._events, self._ephemerals
        return {
            "event": stored.by_client,
            "event-prefix": stored.by_prefix,
            "ephemeral": ephemeral.by_client,
            "ephemeral-prefix": ephemeral.by_prefix,
            **{f"kinds {rule}": table for rule, table in self._kinds.items()},
        }

    def spend(
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


def _own_bucket(connection: ConnectionQuotas, is_ephemeral: bool) -> Bucket:
    """Return a connection's bucket of events, which is made when it is needed."""
    if is_ephemeral:
        connection.ephemerals = connection.ephemerals or Bucket()
        return connection.ephemerals
    connection.events = connection.events or Bucket()
    return connection.events
