"""The store as a whole."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from tests.support.nostr_events import make_event
from tests.support.stores import put

from pyryrelay.nostr.storage.interface import Outcome, StoreError
from pyryrelay.nostr.storage.sqlite.store import open_writer


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
