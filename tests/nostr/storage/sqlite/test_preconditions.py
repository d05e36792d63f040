"""What prevents that a relay starts on a database; `test_mount` has what the operator is told."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from pyryrelay.nostr.storage.sqlite.database import Lock, open_for_writing
from pyryrelay.nostr.storage.sqlite.preconditions import database_conflict, database_of, database_problem
from pyryrelay.nostr.storage.sqlite.schema import VERSION


def test_a_relative_database_starts_at_the_base() -> None:
    """An absolute one, and one in memory, do not."""
    base = Path("/base")
    assert database_of("sqlite:a.sqlite", base) == "sqlite:/base/a.sqlite"
    assert database_of("sqlite:/x/a.sqlite", base) == "sqlite:/x/a.sqlite"
    assert database_of("sqlite::memory:", base) == "sqlite::memory:"


def test_looking_creates_nothing(tmp_path: Path) -> None:
    """A database that is missing, or in memory, is neither a problem nor a conflict."""
    for url in (f"sqlite:{tmp_path}/x.sqlite", "sqlite::memory:"):
        assert database_problem(url) is None
        assert database_conflict(url) is None
    assert list(tmp_path.iterdir()) == []


def test_a_whole_database_is_no_problem(tmp_path: Path) -> None:
    """Neither while a relay has it."""
    path = tmp_path / "x.sqlite"
    open_for_writing(path).close()
    assert database_problem(f"sqlite:{path}") is None
    lock = Lock(path)
    assert database_problem(f"sqlite:{path}") is None
    assert database_conflict(f"sqlite:{path}") is not None
    lock.release()
    assert database_conflict(f"sqlite:{path}") is None


def test_a_damaged_file_is_a_problem(tmp_path: Path) -> None:
    """Damage is found before the relay starts."""
    path = tmp_path / "x.sqlite"
    open_for_writing(path).close()
    with path.open("r+b") as file:
        file.seek(2048)
        file.write(b"\xff" * 4096)
    problem = database_problem(f"sqlite:{path}")
    assert problem is not None
    assert "damaged" in problem


def test_an_older_version_is_no_problem(tmp_path: Path) -> None:
    """The relay upgrades it when it starts; a later version, or one without a way up, is a problem."""
    path = tmp_path / "x.sqlite"
    open_for_writing(path).close()
    for version, problem in ((1, None), (-1, "has version -1"), (VERSION + 1, "install a newer")):
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA user_version = {version}")
        found = database_problem(f"sqlite:{path}")
        assert found is None if problem is None else problem in str(found)
