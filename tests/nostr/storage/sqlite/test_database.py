"""Opening database files: creation, versions, damage, the lock, and the log."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.nostr_events import make_event
from tests.support.stores import looking_into, put

from pyryrelay.nostr.storage.interface import StoreError
from pyryrelay.nostr.storage.sqlite import database as module
from pyryrelay.nostr.storage.sqlite import schema
from pyryrelay.nostr.storage.sqlite.database import (
    PAGE_BYTES,
    Checkpoints,
    Lock,
    is_temporary,
    open_for_reading,
    open_for_writing,
    path_of,
    remove_temporary,
    temporary_url,
)
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a database that is not there yet."""
    return tmp_path / "store.db"


def filled(path: Path) -> None:
    """Make a database with some events."""
    store = open_writer(f"sqlite:{path}")
    put(store, *(make_event(content="x" * 500 + str(number)) for number in range(200)))
    store.compact()
    store.close()


def refusal(path: Path) -> str:
    """Return why a database cannot be opened for writing; it is one line, and the lock is free again."""
    with pytest.raises(StoreError) as caught:
        open_writer(f"sqlite:{path}")
    Lock(path).release()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_new_file_is_private(path: Path) -> None:
    """Only its owner reads the database and its log."""
    store = open_writer(f"sqlite:{path}")
    put(store, make_event())
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    store.close()


@pytest.mark.parametrize(("is_relaxed", "level"), [(False, 2), (True, 1)])
def test_commits_wait_for_the_disk(path: Path, is_relaxed: bool, level: int) -> None:
    """Commits are flushed (FULL) unless the operator has relaxed that (NORMAL); the log is written ahead."""
    database = open_for_writing(path, is_relaxed=is_relaxed)
    assert database.execute("PRAGMA synchronous").fetchone() == (level,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_a_second_writer_is_refused(path: Path) -> None:
    """One process writes, under whatever name it knows the file; a lock that was released is free."""
    store = open_writer(f"sqlite:{path}")
    (path.parent / "link").symlink_to(path)
    for name in ("store.db", "link"):
        with pytest.raises(StoreError, match="in use by another process: stop that one first"):
            open_writer(f"sqlite:{path.parent / name}")
    store.close()
    store.close()
    open_writer(f"sqlite:{path}").close()


def test_a_lock_ends_with_its_process(path: Path) -> None:
    """After kill -9 the next process gets the lock."""
    script = "import sys; from pyryrelay.nostr.storage.sqlite.store import open_writer; s = open_writer(sys.argv[1])"
    script += "; print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, f"sqlite:{path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreError, match="another process"):
            open_writer(f"sqlite:{path}")
        process.kill()
    open_writer(f"sqlite:{path}").close()


def test_readers_need_no_lock_and_change_nothing(path: Path) -> None:
    """A reader sees what was committed while the writer has the file, and cannot write."""
    store = open_writer(f"sqlite:{path}")
    put(store, make_event())
    reader = open_for_reading(path)
    assert reader.execute("SELECT last_seq FROM store").fetchone() == (1,)
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM event")
    put(store, make_event(content="2"))
    assert reader.execute("SELECT last_seq FROM store").fetchone() == (2,)
    reader.close()
    store.close()


def test_readers_create_nothing(path: Path) -> None:
    """A reader of a missing file says so."""
    with pytest.raises(StoreError, match="cannot be opened: check that its directory exists"):
        open_for_reading(path)
    assert not path.exists()


def test_a_newer_version_is_refused(path: Path) -> None:
    """A database of a later release is not touched, by readers neither."""
    filled(path)
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    database.close()
    expected = f"has version {schema.VERSION + 1}, and this release knows version {schema.VERSION}: install a newer"
    assert expected in refusal(path)
    with pytest.raises(StoreError, match="install a newer"):
        open_for_reading(path)


def test_an_older_version_is_upgraded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is announced and is one transaction; readers wait for the writer to do it."""
    filled(path)
    monkeypatch.setattr(module, "VERSION", schema.VERSION + 2)
    steps = {schema.VERSION: ["CREATE TABLE one (x)"], schema.VERSION + 1: ["CREATE TABLE two (x)"]}
    monkeypatch.setattr(module, "UPGRADES", steps)
    with pytest.raises(StoreError, match="let the relay open it once"):
        open_for_reading(path)
    lines: list[str] = []
    store = open_writer(f"sqlite:{path}", progress=lines.append)
    with looking_into(store) as database:
        assert database.execute("SELECT * FROM one, two").fetchall() == []
        assert database.execute("PRAGMA user_version").fetchone() == (schema.VERSION + 2,)
    store.close()
    assert lines == [f"upgrading database {str(path)!r} from version {v} to {v + 1}" for v in steps]
    open_for_reading(path).close()


def test_a_version_without_a_way_up_is_refused(path: Path) -> None:
    """A version that no release had is not taken for a new file."""
    filled(path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = -1")
    database.close()
    assert "has version -1" in refusal(path)


def test_databases_of_others_are_left_alone(path: Path) -> None:
    """A file of another program is refused."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    assert "belongs to another program: choose another file" in refusal(path)
    assert path.stat().st_size == 8192


@pytest.mark.parametrize(("offset", "what"), [(0, "damaged"), (PAGE_BYTES, "damaged"), (PAGE_BYTES * 20, "damaged")])
def test_damage_is_found_at_the_start(path: Path, offset: int, what: str) -> None:
    """A damaged file is refused with the remedy, wherever the damage is."""
    filled(path)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * PAGE_BYTES)
    text = refusal(path)
    assert what in text
    assert ".recover" in text


def test_damage_of_large_files_is_looked_for_in_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files are not read whole, but an empty table that must have a row is noticed."""
    filled(path)
    monkeypatch.setattr(module, "QUICK_CHECK_BYTES", 0)
    open_writer(f"sqlite:{path}").close()
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM store")
    database.close()
    assert "damaged" in refusal(path)


def test_unusable_places_are_named(tmp_path: Path) -> None:
    """A missing directory and a directory in place of the file are told in one line."""
    assert "No such file or directory" in missing_directory(tmp_path / "missing" / "store.db")
    assert "is not a regular file" in refusal(tmp_path)


def missing_directory(path: Path) -> str:
    """Return why a lock cannot be had."""
    with pytest.raises(StoreError) as caught:
        Lock(path)
    return str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_files_that_cannot_be_written_are_named(path: Path) -> None:
    """A read-only file is refused at the start, not at the first event."""
    filled(path)
    path.chmod(0o400)
    assert "cannot be written" in refusal(path)


def test_temporary_databases_are_removed() -> None:
    """A database in memory is a private file that goes away with its writer; other paths are never removed."""
    store = open_writer("sqlite::memory:")
    directory = store.path.parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert open_for_reading(store.path).execute("SELECT count(*) FROM event").fetchone() == (0,)
    store.close()
    assert not directory.exists()
    shared = temporary_url()
    open_writer(shared).close()
    assert is_temporary(path_of(shared))
    assert not path_of(shared).parent.exists()


def test_other_paths_are_not_temporary(tmp_path: Path) -> None:
    """Only what `temporary_url` has made is removed."""
    path = tmp_path / "store.sqlite"
    path.touch()
    remove_temporary(path)
    assert path.exists()


def test_the_log_is_copied_after_many_rows(path: Path) -> None:
    """After a checkpoint without readers, the log is written from its beginning again, so it stays small."""
    database = open_for_writing(path)
    checkpoints = Checkpoints(database, rows=10)
    database.execute("CREATE TABLE filler (x)")
    sizes = []
    for _ in range(50):
        database.executemany("INSERT INTO filler VALUES (randomblob(3000))", [()] * 5)
        checkpoints.tend()
        sizes.append((path.parent / "store.db-wal").stat().st_size)
    assert sizes[-1] == sizes[5]
    database.close()


def test_a_reader_does_not_grow_the_log_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a read stays open the log grows and writing goes on; when it has ended, the log starts again."""
    monkeypatch.setattr(module, "MAX_LOG_FRAMES", 20)
    monkeypatch.setattr(module, "LOG_WAIT_S", 0.01)
    database = open_for_writing(path)
    checkpoints = Checkpoints(database, rows=10)
    database.execute("CREATE TABLE filler (x)")
    reader = open_for_reading(path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM store").fetchall()
    for _ in range(100):
        database.execute("INSERT INTO filler VALUES (randomblob(3000))")
        checkpoints.tend()
    grown = (path.parent / "store.db-wal").stat().st_size
    assert grown > 100 * 3000
    reader.execute("COMMIT")
    for _ in range(20):
        database.execute("INSERT INTO filler VALUES (randomblob(3000))")
        checkpoints.tend()
    assert database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1] < 30
    reader.close()
    database.close()


def test_a_full_disk_changes_nothing(path: Path) -> None:
    """A batch that does not fit is refused whole; reading goes on; later batches are stored when there is room."""
    store = open_writer(f"sqlite:{path}")
    put(store, make_event())
    limit(store, "(SELECT page_count + 2 FROM pragma_page_count)")
    large = [make_event(content=str(number) * 2000) for number in range(50)]
    for _ in range(2):
        with pytest.raises(StoreError, match="the disk is full"):
            put(store, *large)
        assert store.check().problems == []
        assert store.statistics().last_seq == 1
    limit(store, "1000000")
    assert put(store, *large).seqs == [*range(2, 52)]
    store.close()


def limit(store: SqliteWriter, pages: str) -> None:
    """Bound the size of the database."""
    database = store._database
    (number,) = database.execute(f"SELECT {pages}").fetchone()
    database.execute(f"PRAGMA max_page_count = {number}")


def test_a_locked_database_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program has locked the file, batches are refused."""
    monkeypatch.setattr(module, "BUSY_S", 0.01)
    store = open_writer(f"sqlite:{path}")
    with looking_into(store) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another program"):
            put(store, make_event())
        other.execute("ROLLBACK")
    assert put(store, make_event()).seqs == [1]
    store.close()
