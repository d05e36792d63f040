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
