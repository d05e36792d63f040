"""What tools ask of the store: numbers, a check of everything, and shrinking."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pyryrelay.nostr.events import Event, EventError, canonical, event_id, parse_event
from pyryrelay.nostr.kinds import KindClass, class_of
from pyryrelay.nostr.storage.interface import Checked, Statistics
from pyryrelay.nostr.storage.sqlite.schema import (
    COUNTERS,
    ID_BYTES,
    INDEXES,
    KEY_BYTES,
    LOOKUP_BYTES,
    event_address_key,
    expires,
    tag_keys,
)

__all__ = ["check_store", "compact", "statistics"]

PIECE: Final = 500
MAX_PROBLEMS: Final = 100


def statistics(database: sqlite3.Connection, path: Path) -> Statistics:
    """Return numbers that the store keeps up to date."""
    last_seq, *counts = database.execute(f"SELECT last_seq, {', '.join(COUNTERS)} FROM store").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return Statistics(dict(zip(COUNTERS, counts, strict=True)), _disk_bytes(path), version, last_seq)


def _disk_bytes(path: Path) -> int:
    files = (path.with_name(path.name + ending) for ending in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def compact(database: sqlite3.Connection) -> None:
    """Write the database anew without free pages, and empty its log."""
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    database.execute("PRAGMA optimize")


def check_store(database: sqlite3.Connection, ends_s: float, clock: Callable[[], float]) -> Checked:
    """Let SQLite check its file, then look at events until ``clock`` shows ``ends_s``."""
    checked = Checked()
    for (text,) in database.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})").fetchall():
        checked.problems.extend(f"SQLite: {line}" for line in str(text).splitlines() if line != "ok")
    seq = 0
    rows_of: Counter[str] = Counter()
    counts = dict.fromkeys(COUNTERS, 0)
    while rows := database.execute(
        "SELECT seq, id, pubkey, kind, created_at, expires, json FROM event WHERE seq > ? ORDER BY seq LIMIT ?",
        (seq, PIECE),
    ).fetchall():
        for row in rows:
            seq = row[0]
            checked.events += 1
            try:
                event = _read(row)
                problems = list(_missing(database, seq, event, rows_of))
            except EventError as error:
                problems = [str(error)]
            else:
                counts[class_of(event.kind).value] += 1
            checked.problems.extend(f"event {seq}: {problem}" for problem in problems)
        if clock() >= ends_s or len(checked.problems) >= MAX_PROBLEMS:
            return checked
    checked.problems.extend(_wrong_totals(database, rows_of, counts))
    return checked


def _read(row: tuple[object, ...]) -> Event:
    """Return the event of a row. Raises `EventError` if the row is not that of an event that we have stored."""
    json = bytes(row[6]) if isinstance(row[6], bytes) else b""
    event = parse_event(json)
    texts = canonical(event)
    if texts.json != json:
        raise EventError("it is not in canonical form")
    if event_id(texts.preimage) != event.id:
        raise EventError("its id is not the hash of the event")
    columns = (bytes.fromhex(event.id), bytes.fromhex(event.pubkey), event.kind, event.created_at, expires(event))
    if columns != row[1:6]:
        raise EventError("its columns differ from its content")
    if class_of(event.kind) is KindClass.EPHEMERAL:
        raise EventError("it is ephemeral")
    return event


def _missing(database: sqlite3.Connection, seq: int, event: Event, rows_of: Counter[str]) -> Iterator[str]:
    """Yield what does not lead to an event, and count the rows that should."""
    if address := event_address_key(event):
        rows_of["address"] += 1
        found = database.execute("SELECT created_at, id, seq FROM address WHERE key = ?", (address,))
        if found.fetchone() != (event.created_at, bytes.fromhex(event.id), seq):
            yield "its address does not lead to it"
    if recent := database.execute(
        "SELECT id, pubkey, kind, created_at, keys FROM recent WHERE seq = ?", (seq,)
    ).fetchone():
        rows_of["recent"] += 1
        *columns, keys = recent
        if columns != [bytes.fromhex(event.id), bytes.fromhex(event.pubkey), event.kind, event.created_at]:
            yield "its row among the recent events is that of another event"
        if sorted(keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES)) != sorted(
            tag_keys(event)
        ):
            yield "a tag does not lead to it"
        return
    for table, conditions in _indexed(event):
        for condition in conditions:
            rows_of[table] += 1
            where = " AND ".join(f"{column} = ?" for column in (*condition, "seq"))
            if not database.execute(f"SELECT 1 FROM {table} WHERE {where}", (*condition.values(), seq)).fetchone():
                yield "a tag does not lead to it" if table == "tag" else f"it is not in the index {table}"


def _indexed(event: Event) -> Iterator[tuple[str, list[dict[str, bytes | int]]]]:
    """Yield each index, and what the rows of an event in it are."""
    id_, pubkey = bytes.fromhex(event.id), bytes.fromhex(event.pubkey)
    place: dict[str, bytes | int] = {"created_at": event.created_at, "id": id_[:ID_BYTES]}
    yield "by_id", [{"id": id_[:LOOKUP_BYTES]}]
    yield "by_time", [place]
    yield "by_kind", [{"kind": event.kind, **place}]
    yield "by_author", [{"pubkey": pubkey, "kind": event.kind, **place}]
    yield "tag", [{"key": key, **place, "kind": event.kind} for key in tag_keys(event)]


def _wrong_totals(database: sqlite3.Connection, rows_of: Counter[str], counts: dict[str, int]) -> Iterator[str]:
    for table in (*INDEXES, "recent", "address"):
        wanted = rows_of[table]
        (found,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
        if found != wanted:
            yield f"{found} rows in the table {table} instead of {wanted}"
    found = database.execute(f"SELECT {', '.join(COUNTERS)} FROM store").fetchone()
    if found != tuple(counts.values()):
        yield "the counters differ from what is stored"
