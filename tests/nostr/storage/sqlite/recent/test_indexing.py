"""How recent events get into the indexes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import pytest
from tests.support.nostr_events import ALICE, BOB, id_of, make_event
from tests.support.stores import put

from pyryrelay.nostr.storage.sqlite.database import transaction
from pyryrelay.nostr.storage.sqlite.recent.indexing import RecentIds, index_recent
from pyryrelay.nostr.storage.sqlite.schema import tag_key
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer

NOTE = make_event(ALICE, 1, 20, [["t", "x"], ["e", BOB], ["t", "x"]])
REPLY = make_event(BOB, 7, 10, [["t", "x"]])


@pytest.fixture
def store() -> Iterator[SqliteWriter]:
    """Return a store with two recent events."""
    with contextlib.closing(open_writer("sqlite::memory:")) as opened:
        put(opened, NOTE, REPLY)
        yield opened


def rows(database: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    """Return what is in a table, in its order."""
    return database.execute(f"SELECT * FROM {table}").fetchall()


def test_each_index_gets_its_entries(store: SqliteWriter) -> None:
    """Ids are cut to what the index needs, tags come once each, and nothing is recent any more."""
    database = store._database
    note, reply = id_of(NOTE)[:16], id_of(REPLY)[:16]
    with transaction(database):
        index_recent(database)
    assert rows(database, "by_id") == sorted([(note[:8], 1), (reply[:8], 2)])
    assert rows(database, "by_time") == [(20, note, 1), (10, reply, 2)]
    assert rows(database, "by_kind") == [(1, 20, note, 1), (7, 10, reply, 2)]
    assert rows(database, "by_author") == [
        (bytes.fromhex(ALICE), 1, 20, note, 1),
        (bytes.fromhex(BOB), 7, 10, reply, 2),
    ]
    topic = tag_key("t", "x")
    assert rows(database, "tag") == [
        (tag_key("e", BOB), 20, note, 1, 1),
        (topic, 20, note, 1, 1),
        (topic, 10, reply, 2, 7),
    ]
    assert rows(database, "recent") == []
    assert database.execute("SELECT last_seq, indexed_seq FROM store").fetchone() == (2, 2)


def test_ids_are_those_of_the_table(store: SqliteWriter) -> None:
    """They are read once, follow what is dropped, and are read again after they were forgotten."""
    ids = RecentIds(store._database)
    ids.drop([id_of(NOTE)])
    assert ids.get() == {id_of(NOTE): 1, id_of(REPLY): 2}
    ids.drop([id_of(NOTE), b"another"])
    assert ids.get() == {id_of(REPLY): 2}
    ids.forget()
    assert ids.get() == {id_of(NOTE): 1, id_of(REPLY): 2}
