"""Entries of the indexes, read in short statements, each of which examines a bounded number of rows.

An entry is what an index knows of an event, as a tuple that sorts in the order of answers: ``(-created_at, first bytes
of the id, seq, kind)``. The index by time does not know the kind; it gives `UNKNOWN_KIND`. Entries of events that are
not indexed yet come from `RecentEntries`, and look the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from pyryrelay.nostr.storage.sqlite.database import errors_translated
from pyryrelay.nostr.storage.sqlite.queries.planning import Index, Key
from pyryrelay.nostr.storage.sqlite.recent.lookups import UNKNOWN_KIND, Entry, RecentEntries, RecentKnown
from pyryrelay.nostr.storage.sqlite.schema import ID_BYTES, LOOKUP_BYTES

__all__ = ["UNKNOWN_KIND", "Entry", "Row", "Tables"]

Row: TypeAlias = tuple[int, bytes, int, int | None, bytes]
"""``(seq, pubkey, kind, expires, json)``"""

_TABLES: Final[dict[Index, tuple[str, str, str]]] = {
    Index.TAGS: ("tag", "kind", "key = ?"),
    Index.AUTHORS_KINDS: ("by_author", "kind", "pubkey = ? AND kind = ?"),
    Index.KINDS: ("by_kind", "kind", "kind = ?"),
    Index.TIME: ("by_time", str(UNKNOWN_KIND), "TRUE"),
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
_ID: Final = (
    f"SELECT -created_at, substr(event.id, 1, {ID_BYTES}), seq, kind FROM by_id JOIN event USING (seq) "
    f"WHERE by_id.id = substr(?1, 1, {LOOKUP_BYTES}) AND event.id = ?1"
)
_KIND_OF_AUTHOR: Final = "SELECT min(kind) FROM by_author WHERE pubkey = ? AND kind > ?"
_KIND: Final = "SELECT min(kind) FROM by_kind WHERE kind > ?"
_EXPIRED: Final = "SELECT seq FROM event WHERE expires <= ? LIMIT ?"
_LOAD: Final = (
    "SELECT event.seq, pubkey, kind, expires, event.json FROM json_each(?) AS wanted "
    "CROSS JOIN event ON event.seq = wanted.value"
)
_KNOWN: Final = "SELECT event.id FROM by_id JOIN event USING (seq) WHERE by_id.id IN ({})"


class Tables:
    """The statements of the read side, on one connection in autocommit mode.

    A statement is compiled once per connection; run many of them within one transaction, which halves what each costs.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._execute = connection.execute
        self._recent_entries = RecentEntries(connection)
        self._recent_known = RecentKnown(connection)
        self._is_current = False  # what is known of recent events, within a transaction

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Run a read transaction: all its statements see the same state. Raises `StoreError` for what SQLite raises."""
        with errors_translated(self._path):
            self._execute("BEGIN")
            try:
                yield
            finally:
                self._is_current = False
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")

    def first(self, index: Index, key: Key, until: int, since: int, count: int) -> list[Entry]:
        """Return up to ``count`` entries of a range, from its begin."""
        indexed = self._execute(_STATEMENTS[index][0], (*key, until, since, count)).fetchall()
        return _merged(indexed, self._recent().first(key, until, since, count), count)

    def after(self, index: Index, key: Key, place: tuple[int, bytes], since: int, count: int) -> list[Entry]:
        """Return up to ``count`` entries of a range that come after a place, which is a time and an id."""
        indexed = self._execute(
            _STATEMENTS[index][1], (*key, *place, count, *key, place[0], since, count, count)
        ).fetchall()
        return _merged(indexed, self._recent().after(key, place, since, count), count)

    def by_id(self, event_id: bytes | int) -> list[Entry]:
        """Return the entry of an id, if it is stored."""
        return self._recent().by_id(event_id) or self._execute(_ID, (event_id,)).fetchall()

    def next_kind(self, above: int, author: bytes | int | None = None) -> int | None:
        """Return the least kind above ``above`` that is stored, of an author or at all."""
        if author is None:
            row = self._execute(_KIND, (above,)).fetchone()
        else:
            row = self._execute(_KIND_OF_AUTHOR, (author, above)).fetchone()
        indexed: int | None = row[0]
        recent = self._recent().next_kind(above, author)
        return recent if indexed is None or (recent is not None and recent < indexed) else indexed

    def expired(self, wall_s: int, count: int) -> list[int]:
        """Return the numbers of up to ``count`` events that have expired, but were not swept yet."""
        return [seq for (seq,) in self._execute(_EXPIRED, (wall_s, count))]

    def load(self, seqs: Sequence[int]) -> Iterator[Row]:
        """Yield the stored events with these numbers, in this order. Those that are not there any more are left out."""
        return iter(self._execute(_LOAD, (str(list(seqs)),)))

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return which ids are stored, within `reading`. There may be up to some ten thousand."""
        recent = self._recent_known.of(ids)
        rows = self._execute(_KNOWN.format(",".join("?" * len(ids))), [id_[:LOOKUP_BYTES] for id_ in ids])
        return recent.union(row[0] for row in rows).intersection(ids)

    def snapshot(self) -> int:
        """Return the highest number given to an event so far, 0 if there was none."""
        seq: int = self._execute("SELECT last_seq FROM store").fetchone()[0]
        return seq

    def _recent(self) -> RecentEntries:
        """Return the entries of recent events, as of this transaction."""
        if not self._is_current:
            self._recent_entries.update()
            self._is_current = self._connection.in_transaction
        return self._recent_entries


def _merged(indexed: list[Entry], recent: list[Entry], count: int) -> list[Entry]:
    """Return the first ``count`` entries of both."""
    return sorted(indexed + recent)[:count] if recent else indexed
