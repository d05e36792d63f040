"""Removing events takes everything of them along."""

from __future__ import annotations

from tests.support.nostr_events import id_of, make_event
from tests.support.stores import looking_into, put

from pyryrelay.nostr.storage.sqlite.store import open_writer


def test_nothing_of_an_event_stays() -> None:
    """Its tags, its address and its share of the counters go with it; those of others stay."""
    store = open_writer("sqlite::memory:")
    tags = [["d", "x"], ["t", "a"], ["t", "b"]]
    gone, kept = make_event(kind=30_000, tags=tags), make_event(kind=30_001, tags=tags)
    put(store, gone, kept)
    store.delete([id_of(gone)], forever=False)
    with looking_into(store) as database:
        rows = [database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("event", "tag", "address")]
    assert rows == [1, 3, 1]
    assert store.check().problems == []
    store.close()
