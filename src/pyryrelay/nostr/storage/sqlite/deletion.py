"""Remove events with everything that belongs to them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from pyryrelay.nostr.events import Event, stored_event
from pyryrelay.nostr.kinds import KindClass, class_of
from pyryrelay.nostr.storage.sqlite.schema import event_address_key, tag_keys

__all__ = ["Gone", "delete_ids", "remove", "remove_seqs"]


class Gone(NamedTuple):
    """A stored event that is to be removed."""

    seq: int
    event: Event


def remove(database: sqlite3.Connection, gone: Collection[Gone]) -> None:
    """Remove events, each once, within a transaction of the caller."""
    seqs, tags, addresses = [], [], []
    counts: Counter[KindClass] = Counter()
    for seq, event in gone:
        id_ = bytes.fromhex(event.id)
        seqs.append((seq,))
        tags.extend([(key, event.created_at, id_) for key in tag_keys(event)])
        if address := event_address_key(event):
            addresses.append((address, seq))
        counts[class_of(event.kind)] += 1
    tags.sort()
    database.executemany("DELETE FROM tag WHERE key = ? AND created_at = ? AND id = ?", tags)
    database.executemany("DELETE FROM address WHERE key = ? AND seq = ?", addresses)
    database.executemany("DELETE FROM event WHERE seq = ?", seqs)
    database.execute(
        "UPDATE store SET regular = regular - ?, replaceable = replaceable - ?, addressable = addressable - ?",
        (counts[KindClass.REGULAR], counts[KindClass.REPLACEABLE], counts[KindClass.ADDRESSABLE]),
    )


def remove_seqs(database: sqlite3.Connection, seqs: Collection[int]) -> list[bytes]:
    """Remove events by their ``seq``, within a transaction of the caller, and return their ids."""
    gone = [
        Gone(seq, stored_event(json))
        for seq in seqs
        for (json,) in database.execute("SELECT json FROM event WHERE seq = ?", (seq,))
    ]
    remove(database, gone)
    return [bytes.fromhex(each.event.id) for each in gone]


def delete_ids(database: sqlite3.Connection, ids: Collection[bytes], *, forever: bool) -> list[bytes]:
    """Remove events by their ids, within a transaction of the caller, and return the ids of those that were there.

    ``forever`` refuses them from now on, from whatever author.
    """
    wanted = dict.fromkeys(ids)
    if forever:
        database.executemany("INSERT OR IGNORE INTO gone_event VALUES (?, x'')", ((id_,) for id_ in wanted))
    return remove_seqs(database, list(_seqs(database, wanted)))


def _seqs(database: sqlite3.Connection, ids: Collection[bytes]) -> Iterator[int]:
    for id_ in ids:
        for (seq,) in database.execute("SELECT seq FROM event WHERE id = ?", (id_,)):
            yield seq
