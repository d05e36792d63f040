"""Entries of the indexes, read in short statements, each of which examines a bounded number of rows.

An entry is what an index knows of an event, as a tuple that sorts in the order of answers: ``(-created_at, first bytes
of the id, seq, kind)``. The index by time does not know the kind; it gives `UNKNOWN_KIND`. Entries of events that are
not indexed yet come from `RecentEntries`, and look the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final, TypeAlias

from pyryrelay.nostr.storage.sqlite.database import errors_translated
from pyryrelay.nostr.storage.sqlite.queries.planning import Index, Key
from pyryrelay.nostr.storage.sqlite.recent.lookups import UNKNOWN_KIND, Entry, RecentEntries, RecentKnown
from pyryrelay.nostr.storage.sqlite.schema import ID_BYTES, LOOKUP_BYTES

__all__ = ["MOST_RANGES", "UNKNOWN_KIND", "Entry", "Read", "Row", "Tables"]

Row: TypeAlias = tuple[int, bytes, int, int | None, bytes]
"""``(seq, pubkey, kind, expires, json)``"""

_TABLES: Final[dict[Index, tuple[str, str, str]]] = {
    Index.TAGS: ("tag", "kind", "key = ?"),
    Index.AUTHORS_KINDS: ("by_author", "kind", "pubkey = ? AND kind = ?"),
    Index.KINDS: ("by_kind", "kind", "kind = ?"),
    Index.TIME: ("by_time", str(UNKNOWN_KIND), "TRUE"),
}
"""The table, the kind, and the condition of a range, of the indexes that have ranges in order."""


WIDTHS: Final = (1, 4, 16)
"""How many ranges a statement reads: those that are missing have NULL for a key, in which nothing is."""
MOST_RANGES: Final = WIDTHS[-1]
"""More would save little, and a statement has to end soon, also if each range is a place on a slow disk."""
_NO_KEY: Final = (None, None)

Read: TypeAlias = tuple[Key, tuple[int, bytes], int]
"""What is read of a range: its key, the time and the id behind which to begin, and up to how many entries."""


def _statements(index: Index, width: int) -> tuple[str, str]:
    """Return the statements that read ranges from their begins, and from behind an entry of each.

    The rows of a range are together, in the order of answers. The last column is the number of the range.
    """
    table, kind, prefix = _TABLES[index]
    order = "ORDER BY created_at DESC, id LIMIT ?"
    firsts, rests = [], []
    for number in range(width):
        select = f"SELECT -created_at, id, seq, {kind}, {number} FROM {table} WHERE {prefix} AND"
        firsts.append(f"SELECT * FROM ({select} created_at <= ? AND created_at >= ? {order})")
        # One condition for both parts would make SQLite step over all earlier entries of the same second.
        rests.append(
            f"SELECT * FROM (SELECT * FROM ({select} created_at = ? AND id > ? ORDER BY id LIMIT ?) "
            f"UNION ALL SELECT * FROM ({select} created_at < ? AND created_at >= ? {order}) LIMIT ?)"
        )
    return " UNION ALL ".join(firsts), " UNION ALL ".join(rests)


_STATEMENTS: Final = {
    (index, width): _statements(index, width)
    for index in _TABLES
    for width in (WIDTHS if index is not Index.TIME else WIDTHS[:1])
}
_ID: Final = (
    f"SELECT -created_at, substr(event.id, 1, {ID_BYTES}), seq, kind FROM by_id JOIN event USING (seq) "
    f"WHERE by_id.id = substr(?, 1, {LOOKUP_BYTES}) AND event.id = ?"
)
_KINDS_OF_AUTHOR: Final = """
    WITH RECURSIVE found (kind) AS (
        SELECT min(kind) FROM by_author WHERE pubkey = ? AND kind > ?
        UNION ALL
        SELECT (SELECT min(by_author.kind) FROM by_author WHERE pubkey = ? AND by_author.kind > found.kind)
        FROM found WHERE found.kind IS NOT NULL LIMIT ?
    )
    SELECT kind FROM found WHERE kind IS NOT NULL
    """
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

    def first(self, index: Index, keys: Sequence[Key], until: int, since: int, count: int) -> list[list[Entry]]:
        """Return up to ``count`` entries of each of up to `MOST_RANGES` ranges, from its begin."""
        rest = until, since, count
        pieces = self._read(index, 0, keys, [(*key, *rest) for key in keys], (*_NO_KEY[: len(keys[0])], 0, 0, 0))
        recent = self._recent()
        for number in recent.among(keys):
            pieces[number] = sorted(pieces[number] + recent.first(keys[number], *rest))[:count]
        return pieces

    def after(self, index: Index, reads: Sequence[Read], since: int) -> list[list[Entry]]:
        """Return entries of up to `MOST_RANGES` ranges that come behind a place in each."""
        parameters = [(*key, *place, count, *key, place[0], since, count, count) for key, place, count in reads]
        keys = [key for key, _, _ in reads]
        no_key = _NO_KEY[: len(keys[0])]
        pieces = self._read(index, 1, keys, parameters, (*no_key, 0, b"", 0, *no_key, 0, 0, 0, 0))
        recent = self._recent()
        for number in recent.among(keys):
            key, place, count = reads[number]
            pieces[number] = sorted(pieces[number] + recent.after(key, place, since, count))[:count]
        return pieces

    def _read(
        self,
        index: Index,
        which: int,
        keys: Sequence[Key],
        parameters: Sequence[tuple[object, ...]],
        missing: tuple[object, ...],
    ) -> list[list[Entry]]:
        """Run one of the statements of an index, and return the entries of each range."""
        width = next(width for width in WIDTHS if width >= len(keys))
        statement = _STATEMENTS[index, width][which]
        values = [*chain.from_iterable(parameters), *missing * (width - len(keys))]
        pieces: list[list[Entry]] = [[] for _ in keys]
        for newest, event_id, seq, kind, number in self._execute(statement, values):
            pieces[number].append((newest, event_id, seq, kind))
        return pieces

    def by_id(self, event_id: bytes | int) -> list[Entry]:
        """Return the entry of an id, if it is stored."""
        return self._recent().by_id(event_id) or self._execute(_ID, (event_id, event_id)).fetchall()

    def next_kind(self, above: int) -> int | None:
        """Return the least kind above ``above`` that is stored."""
        indexed: int | None = self._execute(_KIND, (above,)).fetchone()[0]
        return min((kind for kind in (indexed, self._recent().next_kind(above)) if kind is not None), default=None)

    def kinds_of(self, author: bytes | int, above: int, count: int) -> list[int]:
        """Return the ``count`` least kinds above ``above`` that an author has written, or all of these."""
        indexed = {kind for (kind,) in self._execute(_KINDS_OF_AUTHOR, (author, above, author, count))}
        return sorted(indexed.union(self._recent().kinds_of(author, above)))[:count]

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
