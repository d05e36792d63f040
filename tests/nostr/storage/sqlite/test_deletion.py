"""Removing events takes everything of them along."""

from __future__ import annotations

import pytest
from tests.support.nostr_events import id_of, make_event
from tests.support.stores import looking_into, put

from pyryrelay.nostr.storage.interface import Outcome
from pyryrelay.nostr.storage.sqlite.schema import INDEXES
from pyryrelay.nostr.storage.sqlite.store import open_writer

TABLES = ("event", *INDEXES, "recent", "address")


@pytest.mark.parametrize(("is_indexed", "rows"), [(True, [1, 1, 1, 1, 1, 3, 0, 1]), (False, [1, 0, 0, 0, 0, 0, 1, 1])])
def test_nothing_of_an_event_stays(is_indexed: bool, rows: list[int]) -> None:
    """Its entries, its address and its share of the counters go with it, recent or not; those of others stay."""
    store = open_writer("sqlite::memory:")
    tags = [["d", "x"], ["t", "a"], ["t", "b"]]
    gone, kept = make_event(kind=30_000, tags=tags), make_event(kind=30_001, tags=tags)
    put(store, gone, kept)
    store.tend(is_idle=is_indexed)
    assert store.delete([id_of(gone), b"\1" * 32], forever=False) == [id_of(gone)]
    with looking_into(store) as database:
        assert [database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES] == rows
    assert store.check().problems == []
    assert put(store, gone, kept).outcomes == [Outcome.STORED, Outcome.DUPLICATE]
    store.close()
