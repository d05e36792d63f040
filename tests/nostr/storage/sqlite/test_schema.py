"""The keys in the tables, and the way from earlier versions of the tables."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_events import ALICE, BOB, id_of, json_of, make_event
from tests.support.stored_events import EVERYBODY, LIMITS, finish, in_order, texts
from tests.support.stores import looking_into, put

from pyryrelay.nostr.events import Event, indexed_tags
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.kinds import KindClass, class_of
from pyryrelay.nostr.storage.interface import OlderStoreError, Outcome
from pyryrelay.nostr.storage.sqlite.reader import open_reader
from pyryrelay.nostr.storage.sqlite.schema import (
    APPLICATION_ID,
    UPGRADES,
    VERSION,
    address_key,
    event_address_key,
    expires,
    tag_key,
    tag_keys,
)
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer

HEX = "0123456789abcdef" * 4


def test_keys_of_hex_values_begin_with_the_value() -> None:
    """Ids and public keys are not hashed; anything else is."""
    assert tag_key("e", HEX) == b"e" + bytes.fromhex(HEX)[:16]
    for value in ("", HEX[:63], HEX + "0", "x\0", "g" * 64, "\u0660" * 64):
        assert tag_key("t", value) == b"t" + sha256(value.encode()).digest()[:16]


def test_an_event_has_each_key_once() -> None:
    """Repeated tags make one row; tags that filters cannot ask for make none."""
    tags = [["e", HEX], ["e", HEX], ["E", HEX], ["t"], ["tt", "x"], [], ["1", "x"], ["\u00e9", "x"], ["t", "g" * 64]]
    assert tag_keys(make_event(tags=tags)) == {tag_key("e", HEX), tag_key("E", HEX), tag_key("t", "g" * 64)}


_values = st.text(max_size=3) | st.text("0123456789abcdefABCDEF g\u0660", min_size=63, max_size=65)


@given(st.lists(st.lists(st.sampled_from(["e", "t", "Z", "", "ee", "\u00e9"]) | _values, max_size=3), max_size=5))
def test_keys_of_an_event_are_those_of_its_tags(tags: list[list[str]]) -> None:
    """The fast way to all keys of an event gives the keys that look-ups use."""
    event = make_event(tags=tags)
    assert tag_keys(event) == {tag_key(letter, value) for letter, value in indexed_tags(event)}


@given(st.tuples(st.integers(0, 65_535), st.text()), st.tuples(st.integers(0, 65_535), st.text()))
def test_different_addresses_have_different_keys(one: tuple[int, str], other: tuple[int, str]) -> None:
    """Keys are equal for equal kinds and `d` only."""
    keys = [address_key(kind, ALICE, d) for kind, d in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_only_some_events_have_an_address() -> None:
    """Regular events have none."""
    assert event_address_key(make_event(kind=1, tags=[["d", "x"]])) is None
    assert event_address_key(make_event(kind=30_000, tags=[["d", "x"]])) == address_key(30_000, ALICE, "x")


def test_unreadable_expirations_expire_nothing() -> None:
    """Events with such a tag, which publishing refuses, can still be imported."""
    assert expires(make_event(tags=[["expiration", "soon"]])) is None
    assert expires(make_event(tags=[["expiration", "12"]])) == 12


# Upgrades

VERSION_1 = (
    """
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY, id BLOB NOT NULL, pubkey BLOB NOT NULL, kind INTEGER NOT NULL,
        created_at INTEGER NOT NULL, expires INTEGER, json BLOB NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX event_id ON event (id)",
    "CREATE INDEX event_time ON event (created_at DESC, id)",
    "CREATE INDEX event_kind ON event (kind, created_at DESC, id)",
    "CREATE INDEX event_author ON event (pubkey, kind, created_at DESC, id)",
    "CREATE INDEX event_expires ON event (expires) WHERE expires IS NOT NULL",
    """
    CREATE TABLE tag (
        key BLOB NOT NULL, created_at INTEGER NOT NULL, id BLOB NOT NULL, kind INTEGER NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (key, created_at DESC, id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE address (
        key BLOB PRIMARY KEY, created_at INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE TABLE gone_event (id BLOB NOT NULL, author BLOB NOT NULL, PRIMARY KEY (id, author)) WITHOUT ROWID",
    "CREATE TABLE gone_address (key BLOB PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE store (
        one INTEGER PRIMARY KEY CHECK (one = 1), last_seq INTEGER NOT NULL,
        regular INTEGER NOT NULL, replaceable INTEGER NOT NULL, addressable INTEGER NOT NULL
    )
    """,
    "PRAGMA user_version = 1",
    f"PRAGMA application_id = {APPLICATION_ID}",
)


def write_version_1(path: Path, events: list[Event], last_seq: int) -> None:
    """Write the database that version 1 had of these events, in WAL mode and with its size of pages."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA page_size = 2048")
        database.execute("PRAGMA journal_mode = WAL")
        for statement in VERSION_1:
            database.execute(statement)
        for seq, event in enumerate(events, 1):
            id_ = id_of(event)
            row = (seq, id_, bytes.fromhex(event.pubkey), event.kind, event.created_at, expires(event), json_of(event))
            database.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            tags = [(key, event.created_at, id_, event.kind, seq) for key in tag_keys(event)]
            database.executemany("INSERT INTO tag VALUES (?, ?, ?, ?, ?)", tags)
            if key := event_address_key(event):
                database.execute("INSERT INTO address VALUES (?, ?, ?, ?)", (key, event.created_at, id_, seq))
        counts = Counter(class_of(event.kind) for event in events)
        database.execute("INSERT INTO gone_event VALUES (?, x'')", (b"g" * 32,))
        database.execute(
            "INSERT INTO store VALUES (1, ?, ?, ?, ?)",
            (last_seq, counts[KindClass.REGULAR], counts[KindClass.REPLACEABLE], counts[KindClass.ADDRESSABLE]),
        )


def test_version_1_is_upgraded(tmp_path: Path) -> None:
    """Everything that it had is found as before, the tables are those of a new database, and numbers go on."""
    kept = [
        make_event(author, kind, 1000 + number // 5, [["t", f"x{number % 3}"], ["expiration", "9999"]], str(number))
        for number, (author, kind) in enumerate(itertools.product((ALICE, BOB), (0, 1, 1, 7, 7, 30_000)))
        if (author, kind) != (BOB, 7)
    ][1:]
    path = tmp_path / "old.sqlite"
    write_version_1(path, kept, last_seq=50)
    lines: list[str] = []
    with contextlib.closing(open_writer(f"sqlite:{path}", progress=lines.append)) as store:
        assert len(lines) == VERSION - 1
        assert store.check().problems == []
        assert store.statistics().version == VERSION
        with contextlib.closing(open_writer("sqlite::memory:")) as new:
            assert columns(store) == columns(new)
        with contextlib.closing(open_reader(f"sqlite:{path}")) as reader:
            assert finish(reader.scan([Filter()], EVERYBODY, LIMITS)) == texts(in_order(kept))
            wanted = [event for event in kept if ["t", "x1"] in event.tags]
            assert finish(reader.scan([Filter(tags=(("t", ("x1",)),))], EVERYBODY, LIMITS)) == texts(in_order(wanted))
        assert put(store, kept[0], make_event(content="new")).seqs == [0, 51]
        assert store.sweep(9999, 10.0).removed
        assert store.check().problems == []


def test_an_upgrade_uses_the_indexes_that_are_there(tmp_path: Path) -> None:
    """Nothing large is sorted."""
    path = tmp_path / "old.sqlite"
    write_version_1(path, [make_event()], last_seq=1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in UPGRADES[1]:
            if "SELECT" in statement:
                plan = database.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                assert "TEMP B-TREE" not in str(plan), statement
            database.execute(statement)


def test_version_2_is_upgraded(tmp_path: Path) -> None:
    """It gets a table, and keeps what it had; readers are told that it is older until then."""
    path = tmp_path / "old.sqlite"
    event = make_event()
    with contextlib.closing(open_writer(f"sqlite:{path}")) as store:
        put(store, event)
        new = columns(store)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DROP TABLE position")
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(OlderStoreError):
        open_reader(f"sqlite:{path}")
    lines: list[str] = []
    with contextlib.closing(open_writer(f"sqlite:{path}", progress=lines.append)) as store:
        assert [line.rpartition("version ")[2] for line in lines] == ["2 to 3"]
        assert columns(store) == new
        assert put(store, event).outcomes == [Outcome.DUPLICATE]
        store.keep_positions({"a": "1"})
        assert store.check().problems == []


def columns(store: SqliteWriter) -> dict[str, list[tuple[object, ...]]]:
    """Return the columns of all tables and the columns of all indexes."""
    with looking_into(store) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master ORDER BY name")]
        return {
            name: database.execute(f"PRAGMA table_xinfo({name})").fetchall()
            + database.execute(f"PRAGMA index_xinfo({name})").fetchall()
            for name in names
            if not name.startswith("sqlite_")
        }
