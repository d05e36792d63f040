"""Retention in pieces, and by bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.model_store import ModelStore
from tests.support.nostr_events import ALICE, BOB, CAROL, make_event
from tests.support.stores import put, stored_ids

from pyryrelay.nostr.storage.interface import Retention, RetentionRule, StoreError
from pyryrelay.nostr.storage.sqlite import retention as module
from pyryrelay.nostr.storage.sqlite.retention import used_bytes
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer

KINDS = [0, 1, 3, 5, 7, 62, 10_002, 30_023]


@pytest.fixture
def store() -> Iterator[SqliteWriter]:
    """Return an empty store."""
    opened = open_writer("sqlite::memory:")
    yield opened
    opened.close()


def work(store: SqliteWriter, retention: Retention, wall_s: int = 0) -> tuple[int, int]:
    """Do the smallest pieces until there is no more; return how many there were, and how much was removed."""
    removed, pieces = 0, 0
    while True:
        swept = store.retain(retention, wall_s, 0.0)
        removed, pieces = removed + len(swept.removed), pieces + 1
        if not swept.more:
            return pieces, removed


_events = st.builds(
    make_event,
    st.sampled_from([ALICE, BOB, CAROL]),
    st.sampled_from(KINDS),
    st.integers(0, 20),
    st.just([]),
    st.sampled_from("abc"),
)
_optional = st.none() | st.integers(0, 10)
_rules = st.lists(
    st.builds(RetentionRule, st.frozensets(st.sampled_from(KINDS), min_size=1), _optional, _optional), max_size=3
)
_retentions = st.builds(Retention, _rules, _optional, st.none(), st.frozensets(st.sampled_from([bytes.fromhex(ALICE)])))


@given(st.lists(_events, max_size=40), _retentions, st.integers(1, 5))
@settings(max_examples=60)
def test_pieces_do_what_the_model_does(events: list, retention: Retention, step: int) -> None:  # type: ignore[type-arg]
    """Whatever the rules and the size of the pieces, the same events stay as in the model."""
    model, store = ModelStore(), open_writer("sqlite::memory:")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEP_ROWS", step)
        try:
            put(model, *events)
            put(store, *events)
            model.retain(retention, 15, 1.0)
            work(store, retention, 15)
            assert stored_ids(store) == set(model.events)
            assert store.check().problems == []
        finally:
            store.close()


def test_a_piece_ends_when_its_time_is_up(store: SqliteWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without time, one step is done in each piece."""
    monkeypatch.setattr(module, "STEP_ROWS", 10)
    put(store, *(make_event(content=str(number)) for number in range(95)))
    pieces, removed = work(store, Retention([RetentionRule(frozenset({1}), 0, None)]), 2000)
    assert removed == 95
    assert pieces > 9


def test_a_changed_retention_begins_again(store: SqliteWriter) -> None:
    """A pass under other rules starts from its beginning."""
    put(store, *(make_event(created_at=number) for number in range(10)))
    assert store.retain(Retention(max_events=9), 0, 0.0).more
    assert work(store, Retention(max_events=3))[1] == 6


def test_the_size_of_the_database_is_bounded(store: SqliteWriter) -> None:
    """The oldest events go until the pages in use fit."""
    put(store, *(make_event(created_at=number, content="x" * 3000) for number in range(500)))
    before = used_bytes(store._database)
    work(store, Retention(max_bytes=before // 2))
    assert before // 4 < used_bytes(store._database) <= before // 2
    assert 0 < len(stored_ids(store)) < 500


def test_what_cannot_go_ends_the_pass(store: SqliteWriter) -> None:
    """If only protected events are left, the pass ends although there is too much."""
    put(store, *(make_event(kind=kind) for kind in (0, 3, 5, 62)))
    assert work(store, Retention(max_events=0, max_bytes=1))[1] == 0
    assert work(store, replace(Retention(max_events=0), spared=frozenset({bytes.fromhex(ALICE)})))[1] == 0


def test_a_failure_begins_the_pass_again(store: SqliteWriter) -> None:
    """After an error the same retention is applied from the beginning."""
    put(store, *(make_event(created_at=number) for number in range(10)))
    store._database.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        store.retain(Retention(max_events=3), 0, 1.0)
    store._database.execute("PRAGMA query_only = OFF")
    assert work(store, Retention(max_events=3))[1] == 7
