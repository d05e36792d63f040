"""Entries of the indexes, read in short statements, each of which examines a bounded number of rows.

An entry is what an index knows of an event, as a tuple that sorts in the order of answers: ``(-created_at, id, seq,
kind)``. The index by time does not know the kind; it gives `UNKNOWN_KIND`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from pyryrelay.nostr.storage.sqlite.database import errors_translated
from pyryrelay.nostr.storage.sqlite.queries.planning import Index, Key

__all__ = ["UNKNOWN_KIND", "Entry", "Row", "Tables"]

Entry: TypeAlias = tuple[int, bytes, int, int]
"""``(-created_at, id, seq, kind)``"""
Row: TypeAlias = tuple[int, bytes, int, int | None, bytes]
"""``(seq, pubkey, kind, expires, json)``"""

UNKNOWN_KIND: Final = -1

_TABLES: Final[dict[Index, tuple[str, str, str]]] = {
    Index.TAGS: ("tag", "kind", "key = ?"),
    Index.AUTHORS_KINDS: ("event", "kind", "pubkey = ? AND kind = ?"),
    Index.KINDS: ("event", "kind", "kind = ?"),
    Index.TIME: ("event", str(UNKNOWN_KIND), "TRUE"),
}
"""The table, the kind, and the condition of a range, of the indexes that have ranges in order."""


def _statements(index: Index) -> tuple[str, str]:
    """Return the statements that read a range from its begin, and from behind an entry."""
    table, kind, prefix = _TABLES[index]
    select = f"SELECT -created_at, id, seq, {kind} FROM {table} WHERE {prefix} AND"
    order = "ORDER BY created_at DESC, id LIMIT"
    first = f"{select} created_at <= ? AND created_at >= ? {order} ?"
    # One condition for both parts would make SQLite step over all earlier entries of the same second.
    rest = (
        f"SELECT * FROM ({select} created_at = ? AND id > ? ORDER BY id LIMIT ?) UNION ALL "
        f"SELECT * FROM ({select} created_at < ? AND created_at >= ? {order} ?) LIMIT ?"
    )
    return first, rest


_STATEMENTS: Final = {index: _statements(index) for index in _TABLES}
_ID: Final = "SELECT -created_at, id, seq, kind FROM event WHERE id = ?"
_KIND_OF_AUTHOR: Final = "SELECT min(kind) FROM event WHERE pubkey = ? AND kind > ?"
_KIND: Final = "SELECT min(kind) FROM event WHERE kind > ?"
_EXPIRED: Final = "SELECT seq FROM event WHERE expires <= ? LIMIT ?"
_LOAD: Final = (
    "SELECT event.seq, pubkey, kind, expires, event.json FROM json_each(?) AS wanted "
    "CROSS JOIN event ON event.seq = wanted.value"
)
_KNOWN: Final = "SELECT id FROM event WHERE id IN ({})"


class Tables:
    """The statements of the read side, on one connection in autocommit mode.

    A statement is compiled once per connection; run many of them within one transaction, which halves what each costs.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._execute = connection.execute

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Run a read transaction: all its statements see the same state. Raises `StoreError` for what SQLite raises."""
        with errors_translated(self._path):
            self._execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")

    def first(self, index: Index, key: Key, until: int, since: int, count: int) -> list[Entry]:
        """Return up to ``count`` entries of a range, from its begin."""
        return self._execute(_STATEMENTS[index][0], (*key, until, since, count)).fetchall()

    def after(self, index: Index, key: Key, place: tuple[int, bytes], since: int, count: int) -> list[Entry]:
        """Return up to ``count`` entries of a range that come after a place, which is a time and an id."""
        return self._execute(
            _STATEMENTS[index][1], (*key, *place, count, *key, place[0], since, count, count)
        ).fetchall()

    def by_id(self, event_id: bytes | int) -> list[Entry]:
        """Return the entry of an id, if it is stored."""
        return self._execute(_ID, (event_id,)).fetchall()

    def next_kind(self, above: int, author: bytes | int | None = None) -> int | None:
        """Return the least kind above ``above`` that is stored, of an author or at all."""
        if author is None:
            row = self._execute(_KIND, (above,)).fetchone()
        else:
            row = self._execute(_KIND_OF_AUTHOR, (author, above)).fetchone()
        kind: int | None = row[0]
        return kind

    def expired(self, wall_s: int, count: int) -> list[int]:
        """Return the numbers of up to ``count`` events that have expired, but were not swept yet."""
        return [seq for (seq,) in self._execute(_EXPIRED, (wall_s, count))]

    def load(self, seqs: Sequence[int]) -> Iterator[Row]:
        """Yield the stored events with these numbers, in this order. Those that are not there any more are left out."""
        return iter(self._execute(_LOAD, (str(list(seqs)),)))

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return which ids are stored, in one statement. There may be up to some ten thousand."""
        return {row[0] for row in self._execute(_KNOWN.format(",".join("?" * len(ids))), ids)}

    def snapshot(self) -> int:
        """Return the highest number given to an event so far, 0 if there was none."""
        seq: int = self._execute("SELECT last_seq FROM store").fetchone()[0]
        return seq
