"""Opening SQLite files: for the one writer, and for any number of readers.

The writer holds a lock of the operating system on the file ``PATH-lock``, which ends with its process, so that a second
relay on the same file is refused. Readers do not ask for it. ``sqlite::memory:`` is a file in a private directory,
since several processes have to share it; the writer that was opened with it removes it.

The file has a write-ahead log. SQLite's own checkpoints are off, as they would come with almost every batch;
`Checkpoints` makes them, when a lot has been written. They wait for readers only if the log has grown a lot
nevertheless: readers here end each read after some milliseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pyryrelay.nostr.storage.interface import OlderStoreError, StoreError, StoreInUseError
from pyryrelay.nostr.storage.sqlite.schema import APPLICATION_ID, SCHEMA, UPGRADES, VERSION

__all__ = [
    "Checkpoints",
    "Lock",
    "errors_translated",
    "find_damage",
    "is_temporary",
    "open_for_reading",
    "open_for_writing",
    "path_of",
    "temporary_url",
    "transaction",
]

MEMORY_URL: Final = "sqlite::memory:"
PAGE_BYTES: Final = 4096
"""Databases of version 1 have pages of half the size, and keep them."""
CACHE_BYTES: Final = 64 * 1024 * 1024
READER_CACHE_BYTES: Final = 8 * 1024 * 1024
MMAP_BYTES: Final = 2 * 1024 * 1024 * 1024
"""How much of the file readers map, of which SQLite takes nearly all: what is read otherwise is copied, page by page.

The system counts the pages that were read as resident in each reader, but they are those of its file cache, which it
takes back when it needs memory.
"""
BUSY_S: Final = 5.0
"""How long to wait for another program that has locked the file."""
CHECKPOINT_ROWS: Final = 65_536
"""Changed rows after which the log is copied: few enough that the next batch does not wait long. An event is some ten
rows, most of which share their pages with others."""
MAX_LOG_FRAMES: Final = 32_768
"""The number of pages in the log from which on readers are waited for, for up to `LOG_WAIT_S`."""
LOG_WAIT_S: Final = 0.2
KEPT_LOG_BYTES: Final = 64 * 1024 * 1024
"""The size to which a log that has grown is cut. A file that is written over is flushed faster than one that grows."""
QUICK_CHECK_BYTES: Final = 64 * 1024 * 1024
"""Files up to this size are checked whole when they are opened, which takes up to half a second."""
TEMPORARY_PREFIX: Final = "pyryrelay-nostr-"
_TEMPORARY_NAME: Final = "store.sqlite"

_REMEDY: Final = "restore a backup, or save what can be read with `sqlite3 FILE .recover`"
_CAUSES: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "it is locked by another program",
    sqlite3.SQLITE_LOCKED: "it is locked by another program",
    sqlite3.SQLITE_CORRUPT: f"it is damaged: {_REMEDY}",
    sqlite3.SQLITE_NOTADB: f"it is not an SQLite database, or damaged: {_REMEDY}",
    sqlite3.SQLITE_READONLY: "it cannot be written: check the permissions of the file and of its directory",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that its directory exists and can be written",
    sqlite3.SQLITE_IOERR: "the disk reports an error, or is full",
}


class Lock:
    """The right to write to a database, which one process has. Raises `StoreError` if another one has it."""

    def __init__(self, path: Path) -> None:
        # Two names of a file must not be two locks.
        self._path = path.resolve()
        self._path = self._path.with_name(f"{self._path.name}-lock")
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"database {str(path)!r} cannot be opened: {_reason(error)}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            why = f"database {str(path)!r} is in use by another process: stop that one first"
            raise StoreInUseError(why) from None

    def release(self) -> None:
        """Let others write. The file of the lock stays: removing it could give two processes a lock each."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def path_of(url: str) -> Path:
    """Return the file that a URL ``sqlite:PATH`` names."""
    return Path(url.removeprefix("sqlite:"))


def temporary_url() -> str:
    """Return a URL of an empty database in a new private directory, for processes that share a ``sqlite::memory:``."""
    return f"sqlite:{tempfile.mkdtemp(prefix=TEMPORARY_PREFIX)}/{_TEMPORARY_NAME}"


def is_temporary(path: Path) -> bool:
    """Tell whether a path is one of `temporary_url`, which the writer removes when it closes it."""
    return path.name == _TEMPORARY_NAME and path.parent.name.startswith(TEMPORARY_PREFIX)


def remove_temporary(path: Path) -> None:
    """Remove a database of `temporary_url` with its directory; other paths are left alone."""
    if is_temporary(path):
        shutil.rmtree(path.parent, ignore_errors=True)


def open_for_writing(
    path: Path, *, is_relaxed: bool = False, progress: Callable[[str], object] = lambda _: None
) -> sqlite3.Connection:
    """Open a database whose `Lock` this process has, and create or upgrade it.

    ``is_relaxed`` does not wait for the disk at commits. ``progress`` is called with a line before each upgrade, which
    may take long. Raises `StoreError` that names the remedy.
    """
    with errors_translated(path):
        _make_private(path)
        database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            _prepare(database, path, progress)
            level = "OFF" if is_temporary(path) else "NORMAL" if is_relaxed else "FULL"
            database.execute(f"PRAGMA synchronous = {level}")
            database.execute("PRAGMA wal_autocheckpoint = 0")
            database.execute(f"PRAGMA journal_size_limit = {KEPT_LOG_BYTES}")
            database.execute(f"PRAGMA cache_size = {-CACHE_BYTES // 1024}")
            database.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            database.close()
            raise
    return database


def open_for_reading(path: Path, *, may_be_older: bool = False) -> sqlite3.Connection:
    """Open an existing database that cannot be changed through this connection. Raises `StoreError`.

    Statements must end soon, as a read that stays open keeps the log growing. ``may_be_older`` also takes a version
    that the writer would upgrade.
    """
    with errors_translated(path):
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None
        )
        try:
            database.execute("PRAGMA query_only = ON")
            version = _version(database, path)
            if version < VERSION and _can_upgrade(version):
                if not may_be_older:
                    raise OlderStoreError(_other_version(path, version))
            elif version != VERSION:
                raise StoreError(_other_version(path, version))
            database.execute(f"PRAGMA cache_size = {-READER_CACHE_BYTES // 1024}")
            database.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
            database.execute("PRAGMA temp_store = MEMORY")
        except BaseException:
            database.close()
            raise
    return database


class Checkpoints:
    """When the log is copied into the database: after so many changed rows, each of which may have changed a page."""

    def __init__(self, database: sqlite3.Connection, rows: int = CHECKPOINT_ROWS) -> None:
        self._database = database
        self._rows = rows
        self._next = rows

    def tend(self) -> None:
        """Copy the log if it is time. Called between transactions; problems are left for the next time."""
        if self._database.total_changes < self._next:
            return
        self._next = self._database.total_changes + self._rows
        with contextlib.suppress(sqlite3.Error):
            # Unless a reader is in the way, the next transaction writes the log from its beginning again.
            _, frames, copied = self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if copied < frames and frames > MAX_LOG_FRAMES:
                self._wait_for_readers()

    def _wait_for_readers(self) -> None:
        self._database.execute(f"PRAGMA busy_timeout = {int(LOG_WAIT_S * 1000)}")
        try:
            self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        finally:
            self._database.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Run a transaction that takes the write lock at its start, and is rolled back on errors."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def errors_translated(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of the system as `StoreError` of one line."""
    try:
        yield
    except sqlite3.Error as error:
        cause = _CAUSES.get(_code(error)) or type(error).__name__
        raise StoreError(f"database {str(path)!r}: {cause}") from None
    except OSError as error:
        raise StoreError(f"database {str(path)!r} cannot be opened: {_reason(error)}") from None


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code of an error; 0 for errors that SQLite itself did not raise."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _make_private(path: Path) -> None:
    """Create the file for its owner only, if it is missing. Its log gets the same permissions."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    if not path.is_file():
        raise StoreError(f"database {str(path)!r} is not a regular file")


def _prepare(database: sqlite3.Connection, path: Path, progress: Callable[[str], object]) -> None:
    """Create the tables in an empty file, or check and upgrade what is there."""
    if not _number(database, "SELECT count(*) FROM sqlite_master") and not _number(database, "PRAGMA application_id"):
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    else:
        version = _version(database, path)
        if not _can_upgrade(version):
            raise StoreError(_other_version(path, version))
        find_damage(database, path)
    database.execute("PRAGMA journal_mode = WAL")
    if not _number(database, "PRAGMA application_id"):
        with transaction(database):
            for statement in SCHEMA:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for version in range(_number(database, "PRAGMA user_version"), VERSION):
        progress(f"upgrading database {str(path)!r} from version {version} to {version + 1}")
        with transaction(database):
            for statement in UPGRADES[version]:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {version + 1}")


def _can_upgrade(version: int) -> bool:
    """Tell whether a version is this one, or there is a way from it to this one."""
    return version <= VERSION and all(step in UPGRADES for step in range(version, VERSION))


def _version(database: sqlite3.Connection, path: Path) -> int:
    """Return the version of a database of ours."""
    if _number(database, "PRAGMA application_id") != APPLICATION_ID:
        raise StoreError(f"database {str(path)!r} belongs to another program: choose another file")
    return _number(database, "PRAGMA user_version")


def _other_version(path: Path, version: int) -> str:
    remedy = "install a newer pyryrelay" if version > VERSION else "let the relay open it once, which upgrades it"
    return f"database {str(path)!r} has version {version}, and this release knows version {VERSION}: {remedy}"


def find_damage(database: sqlite3.Connection, path: Path) -> None:
    """Raise `StoreError` or `sqlite3.Error` if the file is damaged in a place that is looked at."""
    if path.stat().st_size <= QUICK_CHECK_BYTES:
        is_whole = database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    else:
        is_whole = _number(database, "SELECT count(*) FROM store") == 1
        database.execute("SELECT * FROM event ORDER BY seq DESC LIMIT 1").fetchall()
        database.execute("SELECT * FROM tag LIMIT 1").fetchall()
    if not is_whole:
        raise StoreError(f"database {str(path)!r}: {_CAUSES[sqlite3.SQLITE_CORRUPT]}")


def _number(database: sqlite3.Connection, query: str) -> int:
    return int(database.execute(query).fetchone()[0])
