"""A database whose file is removed, replaced or cut while it is open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.nostr_events import make_event
from tests.support.stores import put

from pyryrelay.nostr.storage.interface import Outcome, StoreError
from pyryrelay.nostr.storage.sqlite.store import open_writer


@pytest.mark.parametrize(("happens", "problem"), [("removed", "removed"), ("replaced", "replaced"), ("cut", "damaged")])
def test_nothing_is_stored_in_a_file_that_is_gone(tmp_path: Path, happens: str, problem: str) -> None:
    """What is written to a file without a name would end with the process, though its publisher was told otherwise."""
    path = tmp_path / "store.db"
    store = open_writer(f"sqlite:{path}")
    put(store, make_event())
    store._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    put(store, make_event(content="another"))
    whole = path.read_bytes()
    if happens == "cut":
        os.truncate(path, len(whole) // 2)
    else:
        path.unlink()
    if happens == "replaced":
        path.write_bytes(whole)
    for _ in range(2):
        with pytest.raises(StoreError, match=problem):
            put(store, make_event(content="late"))
        with pytest.raises(StoreError, match=problem):
            store.probe()
    store.close()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_log_that_is_gone_is_noticed(tmp_path: Path, is_replaced: bool) -> None:
    """Nothing more is stored, and what was stored is in the database, also if the process is killed then."""
    path = tmp_path / "store.db"
    store = open_writer(f"sqlite:{path}")
    put(store, *(make_event(content=f"{number}") for number in range(3)))
    (tmp_path / "store.db-wal").rename(tmp_path / "elsewhere")
    if is_replaced:
        (tmp_path / "store.db-wal").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"the log of database .* was removed or replaced: restart the relay"):
            put(store, make_event(content="late"))
        with pytest.raises(StoreError, match="the log of"):
            store.probe()
    (tmp_path / "left.db").write_bytes(path.read_bytes())
    left = open_writer(f"sqlite:{tmp_path}/left.db")
    assert sum(left.statistics().events.values()) == 3
    left.close()
    store.close()


def test_a_log_that_is_gone_before_the_first_event_is_noticed(tmp_path: Path) -> None:
    """It is there once the database is open."""
    store = open_writer(f"sqlite:{tmp_path}/store.db")
    (tmp_path / "store.db-wal").unlink()
    with pytest.raises(StoreError, match="the log of"):
        put(store, make_event())
    store.close()


def test_a_database_that_is_gone_with_its_log_is_restored(tmp_path: Path) -> None:
    """To restart the relay would not help then."""
    store = open_writer(f"sqlite:{tmp_path}/store.db")
    for path in list(tmp_path.glob("store.db*")):
        path.unlink()
    with pytest.raises(StoreError, match="restore it"):
        put(store, make_event())
    store.close()


def test_a_compacted_file_is_smaller(tmp_path: Path) -> None:
    """That is no damage."""
    store = open_writer(f"sqlite:{tmp_path}/store.db")
    events = [make_event(content=f"{number}" + "x" * 1000) for number in range(300)]
    put(store, *events)
    store._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    put(store, make_event())
    before = store.path.stat().st_size
    store.delete([bytes.fromhex(one.id) for one in events], forever=False)
    store.compact()
    assert store.path.stat().st_size < before
    assert put(store, make_event(content="late")).outcomes == [Outcome.STORED]
    store.close()
