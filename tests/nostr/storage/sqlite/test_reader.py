"""The read side of a file, while another connection writes to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.nostr_filters import A, B, C, make_event
from tests.support.stored_events import EVERYBODY, LIMITS, FilledStore, finish, never, texts
from tests.support.stores import put

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.interface import StoreError
from pyryrelay.nostr.storage.sqlite.database import open_for_writing
from pyryrelay.nostr.storage.sqlite.reader import open_reader
from pyryrelay.nostr.storage.sqlite.store import open_writer


def test_known_ids() -> None:
    """Of a thousand ids, those that are stored are known, by one statement."""
    store = FilledStore([make_event(id=A), make_event(id=B)])
    ids = [bytes.fromhex(event_id) for event_id in (A, C, B, *(f"{n:064x}" for n in range(997)))]
    assert store.reader.known(ids) == {ids[0], ids[2]}
    assert store.reader.known([]) == set()


def test_the_snapshot_is_the_last_number_that_was_given_away() -> None:
    """It does not go back when the newest event is deleted."""
    store = FilledStore()
    assert store.reader.snapshot() == 0
    store.add(make_event(id=A), make_event(id=B))
    store.remove(2)
    assert store.reader.snapshot() == 2


def test_a_file_is_read_while_it_is_written(tmp_path: Path) -> None:
    """A reader sees what is committed, and its scans keep nobody from writing."""
    path = tmp_path / "store.sqlite"
    writer = open_for_writing(path)
    store = FilledStore(connection=writer)
    reader = open_reader(f"sqlite:{path}")
    event, later = make_event(id=A), make_event(id=B)
    store.add(event)
    scan = reader.scan([Filter()], EVERYBODY, LIMITS)
    assert scan.snapshot == 1
    store.add(later)
    assert finish(scan) == texts([event])
    assert finish(reader.scan([Filter()], EVERYBODY, LIMITS)) == texts([event, later])
    reader.close()
    writer.close()


def test_a_snapshot_may_be_earlier() -> None:
    """Events with higher numbers than asked for are not found; a number that was not given away yet changes nothing."""
    early, late = make_event(id=A), make_event(id=B)
    store = FilledStore([early, late])
    for most, found in ((0, []), (1, [early]), (2, [early, late]), (9, [early, late])):
        scan = store.reader.scan([Filter()], EVERYBODY, LIMITS._replace(max_seq=most))
        assert scan.snapshot == min(most, 2)
        assert finish(scan) == texts(found)


def test_a_version_that_is_replaced_during_a_scan_is_not_sent(tmp_path: Path) -> None:
    """Neither the old version, as it is gone, nor the new one, as it is younger than the scan; the rest is."""
    url = f"sqlite:{tmp_path / 'store.sqlite'}"
    writer, reader = open_writer(url), open_reader(url)
    old = make_event(id=A, kind=0, created_at=100)
    newest, oldest = make_event(id=B, created_at=200), make_event(id=C, created_at=50)
    put(writer, old, newest, oldest)
    scan = reader.scan([Filter()], EVERYBODY, LIMITS)
    assert scan.step(never, 1) == texts([newest])
    put(writer, make_event(id="d" * 64, kind=0, created_at=150))
    assert finish(scan) == texts([oldest])
    assert scan.hint == "finish"
    reader.close()
    writer.close()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """Readers create nothing."""
    with pytest.raises(StoreError):
        open_reader(f"sqlite:{tmp_path / 'missing.sqlite'}")
    assert list(tmp_path.iterdir()) == []
