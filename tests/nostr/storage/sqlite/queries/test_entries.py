"""The statements of the read side."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_filters import A, B, make_event
from tests.support.stored_events import FilledStore

from pyryrelay.nostr.storage.interface import StoreError
from pyryrelay.nostr.storage.sqlite.queries import entries
from pyryrelay.nostr.storage.sqlite.queries.entries import MOST_RANGES, UNKNOWN_KIND, Entry, Read, Tables
from pyryrelay.nostr.storage.sqlite.queries.planning import Index, Key
from pyryrelay.nostr.storage.sqlite.schema import ID_BYTES, tag_key

KEYS: dict[Index, Key] = {
    Index.TAGS: (tag_key("t", "x"),),
    Index.AUTHORS_KINDS: (bytes.fromhex(B), 1),
    Index.KINDS: (1,),
    Index.TIME: (),
}
IDS = sorted(hashlib.sha256(bytes([n])).hexdigest() for n in range(40))


def filled(times: list[int]) -> tuple[FilledStore, Tables]:
    """Return a store with an event for each time, all in the same ranges."""
    store = FilledStore(
        make_event(id=event_id, created_at=created_at, tags=[["t", "x"]])
        for event_id, created_at in zip(IDS, times, strict=False)
    )
    return store, Tables(store.connection, Path("memory"))


@given(
    index=st.sampled_from(list(KEYS)),
    times=st.lists(st.integers(10, 14), max_size=40),
    count=st.integers(1, 7),
    since=st.integers(9, 15),
)
def test_ranges_are_read_in_pieces(index: Index, times: list[int], count: int, since: int) -> None:
    """The pieces of a range are its entries, in the order of answers, each once."""
    store, tables = filled(times)
    kind = UNKNOWN_KIND if index is Index.TIME else 1
    wanted = sorted(
        (-event.created_at, bytes.fromhex(event.id)[:ID_BYTES], seq, kind)
        for seq, event in store.events.items()
        if since <= event.created_at <= 13
    )
    found: list[Entry] = []
    [piece] = tables.first(index, [KEYS[index]], 13, since, count)
    while piece:
        assert len(piece) <= count
        found += piece
        [piece] = tables.after(index, [(KEYS[index], (-piece[-1][0], piece[-1][1]), count)], since)
    assert found == wanted


@given(
    kinds=st.lists(st.integers(1, 6), max_size=40),
    asked=st.lists(st.integers(1, 8), min_size=1, max_size=MOST_RANGES, unique=True),
    counts=st.lists(st.integers(1, 5), min_size=MOST_RANGES, max_size=MOST_RANGES),
)
def test_ranges_are_read_together(kinds: list[int], asked: list[int], counts: list[int]) -> None:
    """Each range has its own entries, as many as were asked for, also those that are not indexed yet."""
    store = FilledStore(
        make_event(id=event_id, kind=kind, created_at=10 + number % 3)
        for number, (event_id, kind) in enumerate(zip(IDS, kinds, strict=False))
    )
    tables = Tables(store.connection, Path("memory"))
    wanted: dict[int, list[Entry]] = {kind: [] for kind in asked}
    for seq, event in store.events.items():
        entry = -event.created_at, bytes.fromhex(event.id)[:ID_BYTES], seq, event.kind
        wanted.get(event.kind, []).append(entry)
    whole = [sorted(found) for found in wanted.values()]
    assert tables.first(Index.KINDS, [(kind,) for kind in asked], 99, 0, counts[0]) == [
        found[: counts[0]] for found in whole
    ]
    # Behind the first entry of each, and behind a place where no entry is.
    reads: list[Read] = []
    for kind, found, count in zip(asked, whole, counts, strict=False):
        reads.append(((kind,), (-found[0][0], found[0][1]) if found else (11, b"\x80"), count))
    assert tables.after(Index.KINDS, reads, 0) == [
        found[1:][:count] for found, count in zip(whole, counts, strict=False)
    ]


@pytest.mark.parametrize(("index", "width"), entries._STATEMENTS)
def test_the_indexes_are_enough_and_need_no_sorting(index: Index, width: int) -> None:
    """Statements seek in an index that has all columns in the right order: what they cost is what they return."""
    store, _ = filled([])
    for statement in entries._STATEMENTS[index, width]:
        parameters = [None] * statement.count("?")
        row: tuple[int, int, int, str]
        for row in store.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters):
            assert "TEMP B-TREE" not in row[3]
            if row[3].startswith(("SCAN", "SEARCH")) and "subquery" not in row[3]:
                assert "USING PRIMARY KEY" in row[3] or row[3] == "SCAN by_time"


def test_loading_keeps_the_order_and_leaves_out_what_is_gone() -> None:
    """Events come in the order that was asked for."""
    store, tables = filled([5, 6, 7])
    store.remove(2)
    assert [row[0] for row in tables.load([3, 2, 1])] == [3, 1]
    seq, pubkey, kind, expires, json = next(tables.load([1]))
    assert (seq, pubkey, kind, expires) == (1, bytes.fromhex(B), 1, None)
    assert json.startswith(b'{"id":"' + IDS[0].encode())


def test_kinds_are_found_one_after_the_other() -> None:
    """The next kind above another one, of an author or of everybody."""
    store = FilledStore([make_event(id=A, kind=5, pubkey=A), make_event(id=B, kind=7, pubkey=B)])
    tables = Tables(store.connection, Path("memory"))
    assert [tables.next_kind(kind) for kind in (-1, 5, 7)] == [5, 7, None]
    assert [tables.kinds_of(bytes.fromhex(B), kind, 9) for kind in (-1, 7)] == [[7], []]


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(-1, 9), st.integers(1, 4))
def test_kinds_of_an_author_are_found_together(kinds: list[int], above: int, count: int) -> None:
    """The least ones, each once, whether they are indexed or not; those of others are not among them."""
    stored = [make_event(id=event_id, kind=kind) for event_id, kind in zip(IDS, kinds, strict=False)]
    store = FilledStore([make_event(id=IDS[-1], kind=5, pubkey=A), *stored])
    tables = Tables(store.connection, Path("memory"))
    wanted = sorted({kind for kind in kinds if kind > above})[:count]
    assert tables.kinds_of(bytes.fromhex(B), above, count) == wanted


def test_expired_events_are_found() -> None:
    """Up to a number of them, the very second included."""
    store = FilledStore(make_event(id=event_id, tags=[["expiration", str(n)]]) for n, event_id in enumerate(IDS[:5]))
    tables = Tables(store.connection, Path("memory"))
    assert tables.expired(2, 10) == [1, 2, 3]
    assert len(tables.expired(2, 2)) == 2


def test_a_failure_is_an_error_of_the_store() -> None:
    """What SQLite raises becomes one line that names the file, and the transaction ends."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    tables = Tables(database, Path("some.sqlite"))
    with pytest.raises(StoreError, match=r"some\.sqlite"), tables.reading():
        tables.snapshot()
    assert not database.in_transaction
