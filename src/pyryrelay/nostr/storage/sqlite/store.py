"""The write side of the SQLite store: one connection, whose methods are transactions."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from pyryrelay.nostr.storage.interface import Checked, Retention, Statistics, StoreError, Swept, Written
from pyryrelay.nostr.storage.sqlite.database import (
    MEMORY_URL,
    Checkpoints,
    Lock,
    errors_translated,
    open_for_writing,
    path_of,
    remove_temporary,
    temporary_url,
    transaction,
)
from pyryrelay.nostr.storage.sqlite.deletion import delete_ids
from pyryrelay.nostr.storage.sqlite.maintenance import check_store, compact, statistics
from pyryrelay.nostr.storage.sqlite.presence import Presence
from pyryrelay.nostr.storage.sqlite.recent.indexing import RecentIds, index_recent
from pyryrelay.nostr.storage.sqlite.retention import Retainer
from pyryrelay.nostr.storage.sqlite.schema import VERSION
from pyryrelay.nostr.storage.sqlite.sweeping import sweep_expired
from pyryrelay.nostr.storage.sqlite.writing import write_batch

__all__ = ["SqliteWriter", "open_writer"]

FOREVER: Final = float("inf")
MOST_RECENT: Final = 4_000
"""So many events are indexed at once, in some 100 ms. The more, the fewer pages are changed for each."""


def open_writer(
    url: str, *, is_relaxed: bool = False, progress: Callable[[str], object] = lambda _: None
) -> SqliteWriter:
    """Open the database of a URL ``sqlite:PATH`` for writing; create or upgrade it.

    ``sqlite::memory:`` makes a temporary one. ``is_relaxed`` does not wait for the disk at commits; ``progress`` gets a
    line before each step of an upgrade. Raises `StoreError` with the remedy, also if another process writes to it.
    """
    path = path_of(temporary_url() if url == MEMORY_URL else url)
    lock = Lock(path)
    try:
        database = open_for_writing(path, is_relaxed=is_relaxed, progress=progress)
    except BaseException:
        lock.release()
        raise
    return SqliteWriter(database, path, lock)


class SqliteWriter:
    """A `WritableStore` on SQLite. ``path`` is its file."""

    def __init__(
        self, database: sqlite3.Connection, path: Path, lock: Lock, clock: Callable[[], float] = monotonic
    ) -> None:
        self.path = path
        self._database = database
        self._checkpoints = Checkpoints(database)
        self._lock = lock
        self._presence = Presence(path)
        self._clock = clock
        self._retainer = Retainer(database)
        self._recent = RecentIds(database)

    def write(self, events: Sequence[bytes], *, received_s: int) -> Written:
        """Store a batch of canonical events in one transaction."""
        self.tend()
        self._check_log()
        with self._changing(), transaction(self._database):
            self._presence.check()
            return write_batch(self._database, events, received_s, self._recent.get())

    def tend(self, *, is_idle: bool = False) -> None:
        """Index recent events, if there are many or nothing else is to do, and copy the log if it is time."""
        with self._changing():
            count = len(self._recent.get())
            if count >= MOST_RECENT or (is_idle and count):
                self._index_recent()
        self._checkpoints.tend()

    def sweep(self, wall_s: int, budget_s: float) -> Swept:
        """Remove events that have expired, for about ``budget_s``."""
        with self._changing():
            swept = sweep_expired(self._database, wall_s, self._clock() + budget_s, self._clock)
        self._recent.drop(swept.removed)
        self._checkpoints.tend()
        return swept

    def retain(self, retention: Retention, wall_s: int, budget_s: float) -> Swept:
        """Remove what is not to be kept, for about ``budget_s``."""
        with self._changing():
            self._index_recent()
            swept = self._retainer.work(retention, wall_s, self._clock() + budget_s, self._clock)
        self._checkpoints.tend()
        return swept

    def delete(self, ids: Collection[bytes], *, forever: bool) -> list[bytes]:
        """Remove these events, and return the ids of those that were there."""
        with self._changing(), transaction(self._database):
            deleted = delete_ids(self._database, ids, self._recent.get(), forever=forever)
        self._recent.drop(deleted)
        self._checkpoints.tend()
        return deleted

    def probe(self) -> None:
        """Write the version again, as a row that stays the same would not be written."""
        self._check_log()
        with self._errors(), transaction(self._database):
            self._presence.check()
            self._database.execute(f"PRAGMA user_version = {VERSION}")

    def statistics(self) -> Statistics:
        """Count what is stored."""
        with self._errors():
            return statistics(self._database, self.path)

    def since(self, seq: int, most: int) -> list[tuple[int, bytes]]:
        """Return up to ``most`` events whose number is higher than ``seq``, in order."""
        with self._errors():
            sql = "SELECT seq, json FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
            return self._database.execute(sql, (seq, most)).fetchall()

    def positions(self) -> dict[str, str]:
        """Return what `keep_positions` has kept."""
        with self._errors():
            return dict(self._database.execute("SELECT name, position FROM position"))

    def keep_positions(self, positions: Mapping[str, str]) -> None:
        """Keep these positions, and those of other names as they are."""
        with self._errors(), transaction(self._database):
            self._presence.check()
            self._database.executemany("INSERT OR REPLACE INTO position VALUES (?, ?)", positions.items())

    def check(self, budget_s: float | None = None) -> Checked:
        """Verify the database, and events for up to ``budget_s``."""
        with self._errors():
            return check_store(self._database, FOREVER if budget_s is None else self._clock() + budget_s, self._clock)

    def compact(self) -> None:
        """Give unused space back to the file system."""
        with self._errors():
            compact(self._database)
        self._presence.may_shrink()

    def close(self) -> None:
        """Close the database; remove it if it is temporary. A second call does nothing."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        remove_temporary(self.path)
        self._lock.release()

    def _check_log(self) -> None:
        """Raise `StoreError` if the log was removed, and copy what was stored in it to the database."""
        self._presence.check()
        try:
            self._presence.check_log()
        except StoreError:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            raise

    def _index_recent(self) -> None:
        recent = self._recent.get()
        if recent:
            with transaction(self._database):
                index_recent(self._database)
            recent.clear()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Translate errors of what changes events, after which the ids of recent ones are read again."""
        try:
            with self._errors():
                yield
        except BaseException:
            self._recent.forget()
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        with errors_translated(self.path):
            try:
                yield
            except (ValueError, OverflowError) as error:
                # Nothing that passes for an event gets here; the content stays out of the text.
                raise StoreError(f"database {str(self.path)!r}: not an event ({type(error).__name__})") from None
