"""What tools ask of the store: numbers, a check of everything, and shrinking."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pyryrelay.nostr.events import Event, EventError, canonical, event_id, parse_event
from pyryrelay.nostr.kinds import KindClass, class_of
from pyryrelay.nostr.storage.interface import Checked, Statistics
from pyryrelay.nostr.storage.sqlite.schema import COUNTERS, event_address_key, expires, tag_keys

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
    seq, tags, addresses = 0, 0, 0
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
                problems = list(_missing(database, seq, event))
            except EventError as error:
                problems = [str(error)]
            else:
                tags += len(tag_keys(event))
                addresses += event_address_key(event) is not None
                counts[class_of(event.kind).value] += 1
            checked.problems.extend(f"event {seq}: {problem}" for problem in problems)
        if clock() >= ends_s or len(checked.problems) >= MAX_PROBLEMS:
            return checked
    checked.problems.extend(_wrong_totals(database, {"tag": tags, "address": addresses}, counts))
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


def _missing(database: sqlite3.Connection, seq: int, event: Event) -> Iterator[str]:
    """Yield what does not lead to an event; SQLite itself checks the indexes of its table."""
    id_ = bytes.fromhex(event.id)
    for key in tag_keys(event):
        place = (key, event.created_at, id_)
        found = database.execute("SELECT kind, seq FROM tag WHERE key = ? AND created_at = ? AND id = ?", place)
        if found.fetchone() != (event.kind, seq):
            yield "a tag does not lead to it"
    if address := event_address_key(event):
        found = database.execute("SELECT created_at, id, seq FROM address WHERE key = ?", (address,))
        if found.fetchone() != (event.created_at, id_, seq):
            yield "its address does not lead to it"


def _wrong_totals(database: sqlite3.Connection, rows: dict[str, int], counts: dict[str, int]) -> Iterator[str]:
    for table, wanted in rows.items():
        (found,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
        if found != wanted:
            yield f"{found} rows in the table {table} instead of {wanted}"
    found = database.execute(f"SELECT {', '.join(COUNTERS)} FROM store").fetchone()
    if found != tuple(counts.values()):
        yield "the counters differ from what is stored"
