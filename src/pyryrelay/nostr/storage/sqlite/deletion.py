"""Remove events with everything that belongs to them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from pyryrelay.nostr.events import Event, stored_event
from pyryrelay.nostr.kinds import KindClass, class_of
from pyryrelay.nostr.storage.sqlite.schema import ID_BYTES, LOOKUP_BYTES, event_address_key, tag_keys

__all__ = ["FIND_ID", "Gone", "delete_ids", "remove", "remove_seqs"]

FIND_ID: Final = "SELECT seq, json FROM by_id JOIN event USING (seq) WHERE by_id.id = ? AND event.id = ?"
"""An indexed event by the beginning of its id and by all of it."""


class Gone(NamedTuple):
    """A stored event that is to be removed."""

    seq: int
    event: Event


def remove(database: sqlite3.Connection, gone: Collection[Gone]) -> None:
    """Remove events, each once, within a transaction of the caller."""
    (indexed_seq,) = database.execute("SELECT indexed_seq FROM store").fetchone()
    _remove_entries(database, [each for each in gone if each.seq <= indexed_seq])
    recent = [(each.seq,) for each in gone if each.seq > indexed_seq]
    database.executemany("DELETE FROM recent WHERE seq = ?", recent)
    keys = ((event_address_key(event), seq) for seq, event in gone)
    database.executemany("DELETE FROM address WHERE key = ? AND seq = ?", [pair for pair in keys if pair[0]])
    database.executemany("DELETE FROM event WHERE seq = ?", [(each.seq,) for each in gone])
    counts = Counter(class_of(event.kind) for _, event in gone)
    database.execute(
        "UPDATE store SET regular = regular - ?, replaceable = replaceable - ?, addressable = addressable - ?,"
        " recent_removals = recent_removals + ?",
        (counts[KindClass.REGULAR], counts[KindClass.REPLACEABLE], counts[KindClass.ADDRESSABLE], len(recent)),
    )


def _remove_entries(database: sqlite3.Connection, gone: Collection[Gone]) -> None:
    """Remove events from the indexes."""
    ids, times, kinds, authors, tags = [], [], [], [], []
    for seq, event in gone:
        whole, created_at, kind = bytes.fromhex(event.id), event.created_at, event.kind
        id_ = whole[:ID_BYTES]
        ids.append((whole[:LOOKUP_BYTES], seq))
        times.append((created_at, id_, seq))
        kinds.append((kind, created_at, id_, seq))
        authors.append((bytes.fromhex(event.pubkey), kind, created_at, id_, seq))
        tags.extend([(key, created_at, id_, seq) for key in tag_keys(event)])
    tags.sort()
    place = "created_at = ? AND id = ? AND seq = ?"
    database.executemany("DELETE FROM by_id WHERE id = ? AND seq = ?", ids)
    database.executemany(f"DELETE FROM by_time WHERE {place}", times)
    database.executemany(f"DELETE FROM by_kind WHERE kind = ? AND {place}", kinds)
    database.executemany(f"DELETE FROM by_author WHERE pubkey = ? AND kind = ? AND {place}", authors)
    database.executemany(f"DELETE FROM tag WHERE key = ? AND {place}", tags)


def remove_seqs(database: sqlite3.Connection, seqs: Collection[int]) -> list[bytes]:
    """Remove events by their ``seq``, within a transaction of the caller, and return their ids."""
    gone = [
        Gone(seq, stored_event(json))
        for seq in seqs
        for (json,) in database.execute("SELECT json FROM event WHERE seq = ?", (seq,))
    ]
    remove(database, gone)
    return [bytes.fromhex(each.event.id) for each in gone]


def delete_ids(
    database: sqlite3.Connection, ids: Collection[bytes], recent: Mapping[bytes, int], *, forever: bool
) -> list[bytes]:
    """Remove events by their ids, within a transaction of the caller, and return the ids of those that were there.

    ``recent`` has the numbers of those that are not indexed yet. ``forever`` refuses them from now on, from whatever
    author.
    """
    wanted = dict.fromkeys(ids)
    if forever:
        database.executemany("INSERT OR IGNORE INTO gone_event VALUES (?, x'')", ((id_,) for id_ in wanted))
    return remove_seqs(database, list(_seqs(database, wanted, recent)))


def _seqs(database: sqlite3.Connection, ids: Collection[bytes], recent: Mapping[bytes, int]) -> Iterator[int]:
    for id_ in ids:
        if id_ in recent:
            yield recent[id_]
            continue
        for seq, _ in database.execute(FIND_ID, (id_[:LOOKUP_BYTES], id_)):
            yield seq
