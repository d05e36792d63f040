"""Store the jail's sentences in a small SQLite file, so that they survive a restart. Without it, only bans are lost.

The file holds wall-clock times and the text of networks, so that other processes and people can read it. Sentences in
memory have times of a monotonic clock. All methods take the readings of both clocks, in seconds. A wall clock that was
set back never makes a sentence longer: the time left when it was saved is the maximum.

A fault of the file does not stop the relay. It causes one warning, and bans are kept in memory only from then on. A
damaged file is renamed to ``<name>.corrupt``, replacing an earlier one, and a new file is created. Only a file that
another process has locked is tried again.

The file has a rollback journal rather than a write-ahead log: that needs no second file and no shared memory, and at a
few changed rows per second the difference in speed does not matter. ``synchronous`` is off, because waiting for the
disk would block the reactor. A crash of the process then loses nothing; a power failure loses the file at worst.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_network
from math import isfinite
from pathlib import Path
from typing import Final

from pyryrelay.guard import AddressKey, address_key, network_of
from pyryrelay.guard.jail import Sentence

__all__ = ["JailStore", "Row", "jail_file_problem", "row_of", "sentence_of"]

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x70797279
"""The bytes "pyry" in the file's header, which distinguish it from databases of other programs."""

START_BUSY_S: Final = 2.0
BUSY_S: Final = 0.05
"""How long to wait for another process's lock, at the start and later. Waiting blocks the reactor."""

_SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS jail (
        network TEXT PRIMARY KEY, until REAL NOT NULL, times INTEGER NOT NULL, saved REAL NOT NULL,
        origin TEXT NOT NULL DEFAULT ''
    )
    """,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
# Files of earlier releases lack it. The version stays, because those releases name the columns that they use.
_ADD_ORIGIN: Final = "ALTER TABLE jail ADD COLUMN origin TEXT NOT NULL DEFAULT ''"
_SELECT: Final = "SELECT network, until, times, saved, origin FROM jail"
_SELECT_EARLIER: Final = "SELECT network, until, times, saved, '' FROM jail"
_UPSERT: Final = "INSERT OR REPLACE INTO jail (network, until, times, saved, origin) VALUES (?, ?, ?, ?, ?)"
_FIRST_COLUMNS: Final = 4
_DELETE: Final = "DELETE FROM jail WHERE network = ?"
_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

Row = tuple[str, float, int, float, str]
"""The network of a sentence, its end by the wall clock, the count of sentences, when this was written, and its origin.

Rows of earlier releases have no origin.
"""
_MAX_ORIGIN_CHARS: Final = 255


class _UnusableError(Exception):
    """The file belongs to another program, or has an unknown version, as the text says."""


class _DamagedError(Exception):
    """SQLite cannot read all of the file."""


class JailStore:
    """The file at ``path``, with mode 0600. `load` opens it.

    Methods may be called from any thread, but only one at a time. Before `load`, after `close`, and if the file cannot
    be used, `save` does nothing.
    """

    def __init__(self, path: Path | str, warn: Callable[[str], object]) -> None:
        """Open nothing yet. ``warn`` is called with one line, at most once for each problem."""
        self._path = Path(path)
        self._warn = warn
        self._database: sqlite3.Connection | None = None
        self._pending: dict[str, Row | None] = {}

    @property
    def usable(self) -> bool:
        """Whether bans are written to the file."""
        return self._database is not None

    def load(self, now: float, wall_now: float) -> list[Sentence]:
        """Open or create the file, and return its sentences, including those that have ended."""
        self.close()
        try:
            return self._load(now, wall_now)
        except _DamagedError:
            if not self._set_aside("a new one was created"):
                return []
        except (OSError, sqlite3.Error, _UnusableError) as error:
            self._disable(str(error))
            return []
        return self.load(now, wall_now)

    def save(self, kept: Iterable[Sentence], gone: Iterable[AddressKey], now: float, wall_now: float) -> bool:
        """Write the sentences ``kept``, and delete those of the keys ``gone``, in one transaction.

        Changes that cannot be written because another process has locked the file are written with the next call.
        Returns whether the file is up to date.
        """
        if self._database is None:
            return False
        for key in gone:
            self._pending[str(network_of(key))] = None
        for sentence in kept:
            row = row_of(sentence, now, wall_now)
            self._pending[row[0]] = row
        try:
            self._write_pending(self._database)
        except _DamagedError:
            self._set_aside("bans are kept in memory only until the next start")
        except sqlite3.Error as error:
            if _code(error) not in _LOCKED:
                self._disable(str(error))
        else:
            return True
        return False

    def close(self) -> None:
        """Close the file."""
        self._pending.clear()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _load(self, now: float, wall_now: float) -> list[Sentence]:
        _make_private(self._path)
        self._database = database = sqlite3.connect(
            self._path, timeout=START_BUSY_S, isolation_level=None, check_same_thread=False
        )
        with _damage_raised():
            _prepare(database)
            rows = database.execute(_SELECT if _has_origin(database) else _SELECT_EARLIER).fetchall()
        found = [sentence_of(row, now, wall_now) for row in rows]
        sentences = [sentence for sentence in found if sentence is not None]
        if len(sentences) < len(rows):
            self._warn(f"jail file {str(self._path)!r}: skipped {len(rows) - len(sentences)} unreadable bans")
        try:
            _begin_to_write(database)
            database.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
        except sqlite3.Error as error:
            self._disable(str(error))  # but keep the sentences that it has
        return sentences

    def _write_pending(self, database: sqlite3.Connection) -> None:
        rows = [row for row in self._pending.values() if row is not None]
        gone = [(network,) for network, row in self._pending.items() if row is None]
        with _damage_raised(), _transaction(database):
            database.executemany(_UPSERT, rows)
            database.executemany(_DELETE, gone)
        self._pending.clear()

    def _disable(self, cause: str) -> None:
        self.close()
        self._warn(f"jail file {str(self._path)!r} cannot be used: {cause}; bans are kept in memory only")

    def _set_aside(self, then: str) -> bool:
        """Rename the file, and remove its journal, which must not be applied to the next one."""
        self.close()
        aside = self._path.with_name(f"{self._path.name}.corrupt")
        try:
            self._path.replace(aside)
            self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
        except OSError as error:
            self._disable(f"it is damaged, and {error}")
            return False
        self._warn(f"jail file {str(self._path)!r} is damaged and was moved to {str(aside)!r}; {then}")
        return True


def jail_file_problem(path: Path) -> str | None:
    """Return why bans cannot be kept in the file at ``path``, without changing it; None if they can.

    A missing file is no problem, because `JailStore.load` creates it; nor is a damaged one, which is set aside.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "cannot be used: it is not a regular file"
        if not path.stat().st_size:
            return None
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with contextlib.closing(database), _damage_raised():
            _check_owner(database)
    except (FileNotFoundError, _DamagedError):
        return None
    except (OSError, sqlite3.Error, _UnusableError) as error:
        return f"cannot be used: {error}"
    return None


def _make_private(path: Path) -> None:
    """Create the file if it is missing, and permit access to its owner only. Raises `OSError` and `_UnusableError`."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _UnusableError("it is not a regular file") from None
        with contextlib.suppress(OSError):
            path.chmod(0o600)


def _prepare(database: sqlite3.Connection) -> None:
    """Create the table in an empty file, and check the file."""
    database.execute("PRAGMA synchronous = OFF")
    if not _number(database, "SELECT count(*) FROM sqlite_master"):
        with _transaction(database):
            for statement in _SCHEMA:
                database.execute(statement)
    _check_owner(database)
    if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise _DamagedError


def _check_owner(database: sqlite3.Connection) -> None:
    """Raise `_UnusableError` for a file of another program, or of another version of this one."""
    if _number(database, "PRAGMA application_id") != APPLICATION_ID:
        raise _UnusableError("it is the database of another program")
    version = _number(database, "PRAGMA user_version")
    if version != SCHEMA_VERSION:
        raise _UnusableError(f"it has version {version!r}, and this release knows version {SCHEMA_VERSION}")


def _begin_to_write(database: sqlite3.Connection) -> None:
    """Write to the file, so that a read-only file is noticed before the first ban; add what older releases lack."""
    with _transaction(database):
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if not _has_origin(database):
            database.execute(_ADD_ORIGIN)


def _has_origin(database: sqlite3.Connection) -> bool:
    return any(column[1] == "origin" for column in database.execute("PRAGMA table_info(jail)"))


def _number(database: sqlite3.Connection, query: str) -> int:
    return int(database.execute(query).fetchone()[0])


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Run a transaction that takes the write lock at its start, and is rolled back on errors."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code of an error; 0 for errors that SQLite itself did not raise."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextlib.contextmanager
def _damage_raised() -> Iterator[None]:
    """Raise `_DamagedError` for SQLite's errors about malformed files."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _DamagedError from None
        raise


def row_of(sentence: Sentence, now: float, wall_now: float) -> Row:
    """Return the row of a sentence."""
    return str(sentence.network), wall_now + sentence.until_s - now, sentence.times, wall_now, sentence.origin


def sentence_of(row: Sequence[object], now: float, wall_now: float) -> Sentence | None:
    """Return the sentence of one row; None if it is malformed. Other releases have fewer columns, or more."""
    if len(row) < _FIRST_COLUMNS:
        return None
    network_text, until, times, saved, origin, *_ = *row, ""
    if not (isinstance(origin, str) and len(origin) <= _MAX_ORIGIN_CHARS):
        return None
    if not (isinstance(network_text, str) and isinstance(times, int) and times >= 0):
        return None
    if not (isinstance(until, float) and isinstance(saved, float) and isfinite(until - saved)):
        return None
    try:
        network = ip_network(network_text)
    except ValueError:
        return None
    left_s = until - max(wall_now, saved)
    return Sentence(address_key(network.network_address, network.prefixlen), now + left_s, times, origin)
