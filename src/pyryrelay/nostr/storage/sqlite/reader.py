"""The read side of an SQLite store, as one process has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.reading import ScanLimits
from pyryrelay.nostr.storage.sqlite.database import open_for_reading, path_of
from pyryrelay.nostr.storage.sqlite.queries.counting import SqliteCounting
from pyryrelay.nostr.storage.sqlite.queries.entries import Tables
from pyryrelay.nostr.storage.sqlite.queries.scanning import SqliteScan
from pyryrelay.nostr.storage.visibility import View

__all__ = ["SqliteReader", "open_reader"]


class SqliteReader:
    """An SQLite store that is only read; see ``reading.ReadableStore``.

    Args:
        connection: one in autocommit mode, which becomes this object's.
        path: the file that errors name.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._tables = Tables(connection, path)

    def snapshot(self) -> int:
        """Return the highest ``seq`` given to an event so far."""
        with self._tables.reading():
            return self._tables.snapshot()

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return which ids are stored, by one statement."""
        with self._tables.reading():
            return self._tables.known(ids)

    def scan(self, filters: Sequence[Filter], view: View, limits: ScanLimits) -> SqliteScan:
        """Begin to look for the events of a REQ."""
        snapshot = self.snapshot()
        if limits.max_seq is not None:
            snapshot = min(snapshot, limits.max_seq)
        return SqliteScan(self._tables, filters, view, limits, snapshot)

    def count(
        self, filters: Sequence[Filter], view: View, max_count: int, hll: bool, max_work: int | None = None
    ) -> SqliteCounting:
        """Begin to count up to ``max_count`` events."""
        return SqliteCounting(self._tables, filters, view, self.snapshot(), max_count, hll, max_work)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def open_reader(url: str) -> SqliteReader:
    """Open the existing store of a URL ``sqlite:PATH``. Raises ``StoreError``."""
    path = path_of(url)
    return SqliteReader(open_for_reading(path), path)
