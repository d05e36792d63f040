"""Decide what becomes of a batch of events, and write it: duplicates, replacement, deletions (spec sections 4, 5, 10).

A batch is read, decided and written in one transaction. First everything that the decisions depend on is looked up for
the whole batch; then the events are decided one by one against these tables, which are kept up to date; then all
changes are written, each kind of them at once. So the result is that of writing the events one by one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pyryrelay.nostr.events import Event, stored_event, tag_values
from pyryrelay.nostr.kinds import DELETION, GIFT_WRAP, KindClass, class_of, is_newer
from pyryrelay.nostr.storage.interface import Outcome, Written
from pyryrelay.nostr.storage.sqlite.deletion import Gone, remove
from pyryrelay.nostr.storage.sqlite.schema import LOOKUP_BYTES, address_key, event_address_key, expires, tag_keys

__all__ = ["ANYONE", "PERMANENT", "write_batch"]

PERMANENT: Final = frozenset({DELETION, 62})
"""Kinds that no deletion removes: the deletion itself, and the proof that somebody asked to vanish (NIP-62)."""
ANYONE: Final = b""
"""The author of tombstones that hold for everybody's events."""
CHUNK: Final = 500
"""Values of one look-up: few different statements, each below SQLite's limit of variables."""

_FIND_IDS: Final = "SELECT event.id, seq FROM by_id JOIN event USING (seq) WHERE by_id.id IN ({})"
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


class _Incoming:
    """An event of the batch, or a stored one that one of the batch may remove."""

    __slots__ = ("address", "event", "expires", "id", "is_stored", "json", "place", "seq")

    def __init__(self, json: bytes, place: int = -1, seq: int = 0) -> None:
        self.json = json
        self.event = event = stored_event(json)
        self.id = bytes.fromhex(event.id)
        self.address = event_address_key(event)
        self.expires = expires(event)
        self.place = place
        """Where it is in the batch; -1 if it was stored before."""
        self.seq = seq


class _Targets(NamedTuple):
    """What a kind 5 names: well-formed ids, and addresses of its author."""

    ids: list[bytes]
    addresses: list[bytes]


def write_batch(
    database: sqlite3.Connection, events: Sequence[bytes], received_s: int, recent: dict[bytes, int]
) -> Written:
    """Write a batch within a transaction that the caller has begun, and keep ``recent`` up to date; see `RecentIds`."""
    batch = _Batch(database, [_Incoming(json, place) for place, json in enumerate(events)], received_s, recent)
    outcomes = [batch.decide(incoming) for incoming in batch.incoming]
    return batch.apply(outcomes)


class _Batch:
    """The state that decides about events, as far as the events of one batch touch it."""

    def __init__(
        self,
        database: sqlite3.Connection,
        incoming: list[_Incoming],
        received_s: int,
        recent: dict[bytes, int],
    ) -> None:
        self._database = database
        self._recent = recent
        self.incoming = incoming
        self._received_s = received_s
        self._targets = {each.place: _targets(each.event) for each in incoming if each.event.kind == DELETION}
        named = [id_ for targets in self._targets.values() for id_ in targets.ids]
        addresses = {each.address for each in incoming if each.address}
        addresses.update(key for targets in self._targets.values() for key in targets.addresses)
        self._stored: dict[bytes, _Incoming | None] = dict.fromkeys(self._known([each.id for each in incoming]))
        """What is in the store by id; None if only its presence is known."""
        self._at: dict[bytes, _Incoming] = {}
        """What is in the store by address."""
        self._load([seq for _, seq in self._found(named)])
        self._load([seq for (seq,) in self._select("SELECT seq FROM address WHERE key IN ({})", addresses)])
        self._gone_ids = self._tombstones(each.id for each in incoming)
        self._gone_addresses = dict(
            self._select("SELECT key, until FROM gone_address WHERE key IN ({})", addresses) if addresses else ()
        )
        self._new: dict[bytes, _Incoming] = {}
        self._removed: dict[bytes, _Incoming] = {}
        self._new_gone_ids: list[tuple[bytes, bytes]] = []
        self._new_gone_addresses: dict[bytes, int] = {}

    def decide(self, incoming: _Incoming) -> Outcome:
        """Decide about one event, and let the later ones of the batch see the result."""
        event = incoming.event
        if class_of(event.kind) is KindClass.EPHEMERAL:
            return Outcome.FAILED
        if incoming.id in self._stored:
            return Outcome.DUPLICATE
        if event.kind not in PERMANENT and self._is_deleted(incoming):
            return Outcome.DELETED
        if incoming.address and (current := self._at.get(incoming.address)):
            has_expired = current.expires is not None and current.expires <= self._received_s
            if not has_expired and is_newer(current.event.created_at, current.event.id, event.created_at, event.id):
                return Outcome.SUPERSEDED
            self._remove(current)
        self._stored[incoming.id] = self._new[incoming.id] = incoming
        if incoming.address:
            self._at[incoming.address] = incoming
        if event.kind == DELETION:
            self._delete(incoming)
        return Outcome.STORED

    def _is_deleted(self, incoming: _Incoming) -> bool:
        """Tell whether a tombstone refuses an event."""
        authors = self._gone_ids.get(incoming.id)
        if authors and (ANYONE in authors or any(key in authors for key in _owners(incoming.event))):
            return True
        until = self._gone_addresses.get(incoming.address) if incoming.address else None
        return until is not None and incoming.event.created_at <= until

    def _delete(self, deletion: _Incoming) -> None:
        """Carry out a kind 5 (NIP-09), and remember what it names."""
        author = bytes.fromhex(deletion.event.pubkey)
        targets = self._targets[deletion.place]
        for id_ in targets.ids:
            self._gone_ids.setdefault(id_, set()).add(author)
            self._new_gone_ids.append((id_, author))
            found = self._stored.get(id_)
            if found and found.event.kind not in PERMANENT and author in _owners(found.event):
                self._remove(found)
        until = deletion.event.created_at
        for key in targets.addresses:
            if until > self._gone_addresses.get(key, -1):
                self._gone_addresses[key] = self._new_gone_addresses[key] = until
            current = self._at.get(key)
            if current and current.event.created_at <= until:
                self._remove(current)

    def _remove(self, gone: _Incoming) -> None:
        self._stored.pop(gone.id, None)
        if gone.address:
            self._at.pop(gone.address, None)
        if gone.place < 0 or self._new.pop(gone.id, None) is None:
            self._removed[gone.id] = gone

    def apply(self, outcomes: list[Outcome]) -> Written:
        """Write all changes, and return what became of the batch."""
        database = self._database
        if self._removed:
            remove(database, [Gone(each.seq, each.event) for each in self._removed.values()])
            for id_ in self._removed:
                self._recent.pop(id_, None)
        database.executemany("INSERT OR IGNORE INTO gone_event VALUES (?, ?)", self._new_gone_ids)
        database.executemany("INSERT OR REPLACE INTO gone_address VALUES (?, ?)", self._new_gone_addresses.items())
        self._insert()
        return Written(outcomes, [each.seq for each in self.incoming], list(self._removed))

    def _insert(self) -> None:
        if not self._new:
            return
        (last_seq,) = self._database.execute("SELECT last_seq FROM store").fetchone()
        rows, recent, addresses = [], [], []
        counts = dict.fromkeys(KindClass, 0)
        for seq, new in enumerate(self._new.values(), last_seq + 1):
            new.seq = seq
            event, created_at, id_ = new.event, new.event.created_at, new.id
            pubkey = bytes.fromhex(event.pubkey)
            rows.append((seq, id_, pubkey, event.kind, created_at, new.expires, new.json))
            recent.append((seq, id_, pubkey, event.kind, created_at, b"".join(tag_keys(event))))
            if new.address:
                addresses.append((new.address, created_at, id_, seq))
            counts[class_of(event.kind)] += 1
            self._recent[id_] = seq
        self._database.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._database.executemany("INSERT INTO recent VALUES (?, ?, ?, ?, ?, ?)", recent)
        self._database.executemany("INSERT INTO address VALUES (?, ?, ?, ?)", addresses)
        self._database.execute(
            "UPDATE store SET last_seq = ?, regular = regular + ?, replaceable = replaceable + ?,"
            " addressable = addressable + ?",
            (
                last_seq + len(rows),
                counts[KindClass.REGULAR],
                counts[KindClass.REPLACEABLE],
                counts[KindClass.ADDRESSABLE],
            ),
        )

    # Look-ups

    def _known(self, ids: list[bytes]) -> Iterator[bytes]:
        return (id_ for id_, _ in self._found(ids))

    def _found(self, ids: Collection[bytes]) -> Iterator[tuple[bytes, int]]:
        """Yield the ids that are stored, with their numbers."""
        recent = self._recent
        yield from ((id_, recent[id_]) for id_ in ids if id_ in recent)
        wanted = set(ids)
        for id_, seq in self._select(_FIND_IDS, [id_[:LOOKUP_BYTES] for id_ in ids]):
            if id_ in wanted:
                yield id_, seq

    def _load(self, seqs: list[int]) -> None:
        """Load stored events."""
        for seq, json in self._select("SELECT seq, json FROM event WHERE seq IN ({})", seqs):
            found = _Incoming(json, seq=seq)
            if isinstance(self._stored.get(found.id), _Incoming):
                continue  # by its id and by its address: one object
            self._stored[found.id] = found
            if found.address:
                self._at[found.address] = found

    def _tombstones(self, ids: Iterator[bytes]) -> dict[bytes, set[bytes]]:
        found: dict[bytes, set[bytes]] = {}
        if self._database.execute("SELECT 1 FROM gone_event LIMIT 1").fetchone():
            for id_, author in self._select("SELECT id, author FROM gone_event WHERE id IN ({})", list(ids)):
                found.setdefault(id_, set()).add(author)
        return found

    def _select(self, query: str, values: Collection[bytes] | Collection[int]) -> Iterator[Any]:
        """Yield the rows of a query for any number of values in the place of ``{}``."""
        chosen = list(values)
        for start in range(0, len(chosen), CHUNK):
            chunk = chosen[start : start + CHUNK]
            # The last value again, as often as needed, to have few different statements.
            size = next(size for size in (1, 16, 64, 250, CHUNK) if size >= len(chunk))
            chunk += chunk[-1:] * (size - len(chunk))
            yield from self._database.execute(query.format(",".join("?" * size)), chunk)


def _owners(event: Event) -> list[bytes]:
    """Return the keys whose kind 5 deletes an event: its author, and recipients of gift wraps."""
    keys = [event.pubkey]
    if event.kind == GIFT_WRAP:
        keys.extend(value for value in tag_values(event, "p") if _is_hex(value))
    return [bytes.fromhex(key) for key in keys]


def _targets(event: Event) -> _Targets:
    ids = dict.fromkeys(bytes.fromhex(value) for value in tag_values(event, "e") if _is_hex(value))
    addresses = dict.fromkeys(filter(None, (_own_address(event, value) for value in tag_values(event, "a"))))
    return _Targets(list(ids), list(addresses))


def _own_address(event: Event, value: str) -> bytes | None:
    """Return the key of the address ``kind:pubkey:d`` if it is one of the event's author."""
    kind, _, rest = value.partition(":")
    pubkey, colon, d = rest.partition(":")
    if pubkey != event.pubkey or not colon or not (kind.isascii() and kind.isdigit() and len(kind) <= 5):
        return None
    kind_class = class_of(int(kind)) if int(kind) <= 65535 else KindClass.REGULAR
    if (kind_class is KindClass.REPLACEABLE and not d) or kind_class is KindClass.ADDRESSABLE:
        return address_key(int(kind), pubkey, d)
    return None


def _is_hex(value: str) -> bool:
    return len(value) == 64 and _HEX_DIGITS.issuperset(value)
