"""The store as a whole."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from tests.support.nostr_events import id_of, json_of, make_event
from tests.support.stores import looking_into, put

from pyryrelay.nostr.storage.interface import Outcome, Retention, RetentionRule, StoreError
from pyryrelay.nostr.storage.sqlite import store as module
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Events, tombstones and numbers outlive the writer."""
    url = f"sqlite:{tmp_path}/store.db"
    kept, gone = make_event(content="kept"), make_event(content="gone")
    store = open_writer(url)
    put(store, kept, make_event(kind=5, tags=[["e", gone.id]]))
    store.close()
    store = open_writer(url)
    written = put(store, kept, gone, make_event(content="new"))
    assert written.outcomes == [Outcome.DUPLICATE, Outcome.DELETED, Outcome.STORED]
    assert written.seqs == [0, 0, 3]
    store.close()


def test_a_closed_store_cannot_be_used(tmp_path: Path) -> None:
    """Using a store after its end is an error of the store, not of SQLite."""
    store = open_writer(f"sqlite:{tmp_path}/store.db")
    store.close()
    with pytest.raises(StoreError):
        store.statistics()


def test_whether_it_can_be_written_is_found_out(tmp_path: Path) -> None:
    """A probe changes nothing, and fails as a batch would while another program has locked the file."""
    path = tmp_path / "store.db"
    store = open_writer(f"sqlite:{path}")
    put(store, make_event())
    store._database.execute("PRAGMA busy_timeout = 1")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another program"):
            store.probe()
        other.execute("ROLLBACK")
        (before,) = other.execute("PRAGMA data_version").fetchone()
        store.probe()
        assert other.execute("PRAGMA data_version").fetchone() != (before,)
    assert store.check().problems == []
    assert store.statistics().last_seq == 1
    store.close()


def test_recent_events_are_indexed_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next write at the latest; before that, or with nothing else to do, by tending."""
    monkeypatch.setattr(module, "MOST_RECENT", 3)
    store = open_writer("sqlite::memory:")
    counts = []
    for number, tending in enumerate((None, None, None, None, False, True, True)):
        put(store, make_event(content=str(number)))
        if tending is not None:
            store.tend(is_idle=tending)
        counts.append(rows_in(store, "recent"))
    assert counts == [1, 2, 3, 1, 2, 0, 0]
    assert [rows_in(store, table) for table in ("by_id", "by_time", "by_kind", "by_author")] == [7] * 4
    assert store.check().problems == []
    store.close()


def test_recent_events_are_known_after_a_restart_and_after_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recent is what the table says, whatever has failed: a write, or moving events into the indexes."""
    url = f"sqlite:{tmp_path}/store.db"
    store = open_writer(url)
    first, second = make_event(content="first"), make_event(content="second")
    put(store, first)
    store.close()
    store = open_writer(url)
    with pytest.raises(StoreError):
        store.write([json_of(second), b"{"], received_s=0)
    assert put(store, first, second).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    store._database.execute("CREATE TRIGGER no BEFORE INSERT ON by_author BEGIN SELECT RAISE(ABORT, 'no'); END")
    for _ in range(2):
        with pytest.raises(StoreError):
            store.tend(is_idle=True)
    monkeypatch.setattr(module, "MOST_RECENT", 2)
    with pytest.raises(StoreError):
        put(store, make_event(content="third"))
    store._database.execute("DROP TRIGGER no")
    assert put(store, first, second, make_event(content="third")).outcomes == [
        Outcome.DUPLICATE,
        Outcome.DUPLICATE,
        Outcome.STORED,
    ]
    assert rows_in(store, "recent") == 1
    assert store.check().problems == []
    store.close()


@pytest.mark.parametrize("remove", ["sweep", "retain", "delete", "replace"])
def test_recent_events_that_were_removed_may_come_back(remove: str) -> None:
    """However an event went, it is no duplicate of itself."""
    store = open_writer("sqlite::memory:")
    event = make_event(kind=0, tags=[["expiration", "9"]])
    put(store, event)
    match remove:
        case "sweep":
            removed = store.sweep(10, 1.0).removed
        case "retain":
            removed = store.retain(Retention([RetentionRule(frozenset({0}), 1, None)]), 2000, 1.0).removed
        case "delete":
            removed = store.delete([id_of(event)], forever=False)
        case _:
            removed = put(store, make_event(kind=0, created_at=1), received_s=10).removed
            store.delete([id_of(make_event(kind=0, created_at=1))], forever=False)
    assert removed == [id_of(event)]
    assert put(store, event).outcomes == [Outcome.STORED]
    assert store.check().problems == []
    store.close()


def rows_in(store: SqliteWriter, table: str) -> int:
    """Return the number of rows in a table."""
    with looking_into(store) as database:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
