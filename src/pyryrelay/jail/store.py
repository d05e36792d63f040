"""Sentences that survive a restart: one small SQLite file. Losing it loses nothing but bans.

The file holds wall-clock times and the text of networks, so that it means something to another process and to a
reader; sentences in memory have times of a monotonic clock, and every method takes both clocks' readings, in
seconds. A sentence never gets longer by a wall clock that was set back: what was left when it was saved is the most
that can be left of it.

Nothing that is wrong with the file stops the relay. There is one warning, a line for `warn`, and from then on bans
are kept in memory only. A damaged file is moved aside to ``<name>.corrupt``, over the one that was moved there
before, and a new one is begun. Only a file that somebody else is writing is tried again.

A rollback journal rather than a write-ahead log: one file, no shared memory, and a few changed rows a second are
little either way. `synchronous` is off, because waiting for a disk would hold the reactor; a crash of the process loses
nothing by that, a power cut at worst the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network
from math import isfinite
from pathlib import Path
from typing import Final

from pyryrelay.guard import AddressKey, address_key, network_of
from pyryrelay.guard.jail import Sentence

__all__ = ["JailStore", "complaint"]

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x70797279
"""The bytes "pyry" in the file's header: what tells it from another program's database."""

START_BUSY_S: Final = 2.0
BUSY_S: Final = 0.05
"""How long to wait for somebody else who is writing, at the start and later. Waiting holds the reactor."""

_SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS jail (
        network TEXT PRIMARY KEY, until REAL NOT NULL, times INTEGER NOT NULL, saved REAL NOT NULL
    )
    """,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_UPSERT: Final = "INSERT OR REPLACE INTO jail (network, until, times, saved) VALUES (?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM jail WHERE network = ?"
_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_Row = tuple[str, float, int, float]


class _UnusableError(Exception):
    """The file is none of ours, or of a version that is not known. The text says so."""


class _DamagedError(Exception):
    """The file is ours, or was, and SQLite cannot read all of it."""


class JailStore:
    """The file at `path`, mode 0600, opened by `load`. One method at a time, from whichever thread.

    Before `load`, after `close`, and when the file cannot be used, `save` does nothing.
    """

    def __init__(self, path: Path | str, warn: Callable[[str], object]) -> None:
        """Touch nothing yet. ``warn`` is given one line, at most once for each thing that goes wrong."""
        self._path = Path(path)
        self._warn = warn
        self._database: sqlite3.Connection | None = None
        self._pending: dict[str, _Row | None] = {}

    @property
    def usable(self) -> bool:
        """Whether bans are written to the file."""
        return self._database is not None

    def load(self, now: float, wall_now: float) -> list[Sentence]:
        """Open the file, which is made if there is none, and return the sentences in it, ended ones included."""
        self.close()
        try:
            return self._load(now, wall_now)
        except _DamagedError:
            if not self._move_aside("a new one is begun"):
                return []
        except (OSError, sqlite3.Error, _UnusableError) as error:
            self._give_up(str(error))
            return []
        return self.load(now, wall_now)

    def save(self, kept: Iterable[Sentence], gone: Iterable[AddressKey], now: float, wall_now: float) -> bool:
        """Write the sentences `kept`, and delete those of the keys `gone`, in one transaction.

        What could not be written because somebody else was writing is written with the next call. Returns whether
        the file is up to date.
        """
        if self._database is None:
            return False
        for key in gone:
            self._pending[str(network_of(key))] = None
        for sentence in kept:
            network = str(sentence.network)
            self._pending[network] = (network, wall_now + sentence.until_s - now, sentence.times, wall_now)
        try:
            self._write_pending(self._database)
        except _DamagedError:
            self._move_aside("bans are kept in memory only until the next start")
        except sqlite3.Error as error:
            if _code(error) not in _LOCKED:
                self._give_up(str(error))
        else:
            return True
        return False

    def close(self) -> None:
        """Let go of the file."""
        self._pending.clear()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _load(self, now: float, wall_now: float) -> list[Sentence]:
        _make_private(self._path)
        self._database = database = sqlite3.connect(
            self._path, timeout=START_BUSY_S, isolation_level=None, check_same_thread=False
        )
        with _damage_told():
            _prepare(database)
            rows = database.execute("SELECT network, until, times, saved FROM jail").fetchall()
        found = [_sentence(row, now, wall_now) for row in rows]
        sentences = [sentence for sentence in found if sentence is not None]
        if len(sentences) < len(rows):
            self._warn(f"jail file {str(self._path)!r}: {len(rows) - len(sentences)} unreadable bans are left out")
        try:
            _probe(database)
            database.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
        except sqlite3.Error as error:
            # It can be read, at least.
            self._give_up(str(error))
        return sentences

    def _write_pending(self, database: sqlite3.Connection) -> None:
        rows = [row for row in self._pending.values() if row is not None]
        gone = [(network,) for network, row in self._pending.items() if row is None]
        with _damage_told(), _transaction(database):
            database.executemany(_UPSERT, rows)
            database.executemany(_DELETE, gone)
        self._pending.clear()

    def _give_up(self, cause: str) -> None:
        self.close()
        self._warn(f"jail file {str(self._path)!r} cannot be used: {cause}; bans are kept in memory only")

    def _move_aside(self, then: str) -> bool:
        """Make room for a new file. A journal of the old one must not be applied to it."""
        self.close()
        aside = self._path.with_name(f"{self._path.name}.corrupt")
        try:
            self._path.replace(aside)
            self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
        except OSError as error:
            self._give_up(f"it is damaged, and {error}")
            return False
        self._warn(f"jail file {str(self._path)!r} is damaged and was moved to {str(aside)!r}; {then}")
        return True


def complaint(path: Path) -> str | None:
    """Why bans could not be kept in the file at `path`, found out without changing it; None where they could.

    A missing file is no fault: `JailStore.load` makes it. Neither is a damaged one, which is moved aside.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "cannot be used: it is not a regular file"
        if not path.stat().st_size:
            return None
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with contextlib.closing(database), _damage_told():
            _check_owner(database)
    except (FileNotFoundError, _DamagedError):
        return None
    except (OSError, sqlite3.Error, _UnusableError) as error:
        return f"cannot be used: {error}"
    return None


def _make_private(path: Path) -> None:
    """Make the file if there is none, readable for us alone. Raises `OSError` and `_UnusableError`."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _UnusableError("it is not a regular file") from None
        with contextlib.suppress(OSError):
            path.chmod(0o600)


def _prepare(database: sqlite3.Connection) -> None:
    """Make the table in an empty file, and check a file that is not empty."""
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


def _probe(database: sqlite3.Connection) -> None:
    """Write something, so that a file that cannot be written is found out before the first ban."""
    with _transaction(database):
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _number(database: sqlite3.Connection, query: str) -> int:
    return int(database.execute(query).fetchone()[0])


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, with the lock for writing from the start."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _code(error: sqlite3.Error) -> int:
    """The primary result code, which tells the kind of error; 0 for errors that are not SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """Raise `_DamagedError` for what SQLite says of a file that it cannot make sense of."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _DamagedError from None
        raise


def _sentence(row: tuple[object, ...], now: float, wall_now: float) -> Sentence | None:
    """Read one row; None if anything about it cannot be."""
    network_text, until, times, saved = row
    if not (isinstance(network_text, str) and isinstance(times, int) and times >= 0):
        return None
    if not (isinstance(until, float) and isinstance(saved, float) and isfinite(until - saved)):
        return None
    try:
        network = ip_network(network_text)
    except ValueError:
        return None
    left_s = until - max(wall_now, saved)
    return Sentence(address_key(network.network_address, network.prefixlen), now + left_s, times)
