"""Numbers, checks and shrinking."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.nostr_events import id_of, json_of, make_event
from tests.support.stores import put

from pyryrelay.nostr.storage.sqlite.schema import VERSION
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer


@pytest.fixture
def store() -> Iterator[SqliteWriter]:
    """Return a store with an event of each class, the last of which is not indexed yet."""
    opened = open_writer("sqlite::memory:")
    put(opened, *(make_event(kind=kind, tags=[["t", "x"]]) for kind in (1, 0)))
    opened.tend(is_idle=True)
    put(opened, make_event(kind=30_000, tags=[["t", "x"]]))
    yield opened
    opened.close()


def test_statistics_tell_size_and_version(store: SqliteWriter) -> None:
    """The size includes the log."""
    statistics = store.statistics()
    assert (statistics.version, statistics.last_seq) == (VERSION, 3)
    assert statistics.database_bytes > store.path.stat().st_size


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM tag WHERE kind = 1", "a tag does not lead to it"),
        ("DELETE FROM address WHERE seq = 2", "its address does not lead to it"),
        ("UPDATE store SET regular = 7", "the counters differ"),
        ("INSERT INTO tag VALUES (x'00', 1, x'00', 1, 1)", "3 rows in the table tag instead of 2"),
        ("DELETE FROM by_id", "it is not in the index by_id"),
        ("UPDATE by_time SET created_at = created_at + 1", "it is not in the index by_time"),
        ("DELETE FROM by_kind WHERE kind = 0", "it is not in the index by_kind"),
        ("UPDATE by_author SET pubkey = x'00' WHERE kind = 1", "it is not in the index by_author"),
        ("INSERT INTO by_id VALUES (x'00', 1)", "3 rows in the table by_id instead of 2"),
        ("UPDATE recent SET kind = 3", "its row among the recent events is that of another event"),
        ("UPDATE recent SET keys = x''", "a tag does not lead to it"),
        ("DELETE FROM recent", "it is not in the index by_id"),
        ("INSERT INTO recent VALUES (9, x'00', x'00', 1, 1, x'')", "2 rows in the table recent instead of 1"),
        ("UPDATE event SET created_at = 7 WHERE kind = 1", "its columns differ from its content"),
        ("UPDATE event SET json = x'7b7d' WHERE kind = 1", "id is missing"),
        ("UPDATE event SET json = CAST(json || x'20' AS BLOB) WHERE kind = 1", "it is not in canonical form"),
        ("UPDATE event SET json = 7 WHERE kind = 1", "not JSON"),
    ],
)
def test_a_check_finds_damage(store: SqliteWriter, damage: str, problem: str) -> None:
    """Each wrong row is told, without its content."""
    assert store.check().problems == []
    store._database.execute(damage)
    assert any(problem in found for found in store.check().problems)


def test_a_check_finds_wrong_ids(store: SqliteWriter) -> None:
    """An event whose id is not its hash is told, and an ephemeral one."""
    event = make_event(content="right")
    wrong = json_of(event).replace(b"right", b"wrong")
    store.write([wrong], received_s=0)
    assert [problem for problem in store.check().problems if "not the hash" in problem]
    ephemeral = make_event(kind=20_000)
    row = (id_of(ephemeral), bytes.fromhex(ephemeral.pubkey), json_of(ephemeral))
    store._database.execute("INSERT INTO event VALUES (99, ?, ?, 20000, 1000, NULL, ?)", row)
    assert [problem for problem in store.check().problems if "ephemeral" in problem]


def test_a_check_ends_when_its_time_is_up(store: SqliteWriter) -> None:
    """With little time, some events are looked at, and the totals are not compared."""
    store._database.execute("UPDATE store SET regular = 7")
    checked = store.check(0.0)
    assert (checked.events, checked.problems) == (3, [])


def test_compacting_gives_space_back(store: SqliteWriter) -> None:
    """After many events were deleted, the file shrinks, and everything is still there."""
    events = [make_event(content="x" * 2000 + str(number)) for number in range(300)]
    put(store, *events)
    store.delete([id_of(event) for event in events[1:]], forever=False)
    before = store.statistics().database_bytes
    store.compact()
    assert store.statistics().database_bytes < before / 4
    assert store.check().events == 4
