"""What prevents that a relay starts on a database, found without changing anything."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pyryrelay.nostr.storage.interface import StoreError
from pyryrelay.nostr.storage.sqlite.database import (
    MEMORY_URL,
    Lock,
    errors_translated,
    find_damage,
    open_for_reading,
    path_of,
)

__all__ = ["database_conflict", "database_of", "database_problem"]


def database_of(url: str, base: Path) -> str:
    """Return the URL that names the same database wherever a process is; a relative path starts at ``base``."""
    return url if url == MEMORY_URL else f"sqlite:{base / path_of(url)}"


def database_problem(database: str) -> str | None:
    """Return why a database cannot be used, with what to do about it; None if nothing is known against it."""
    if database == MEMORY_URL:
        return None
    path = path_of(database)
    if not path.exists():
        if not path.parent.is_dir():
            return f"{str(path.parent)!r} is not a directory: create it"
        if not os.access(path.parent, os.W_OK | os.X_OK):
            return f"directory {str(path.parent)!r} cannot be written: change its permissions, or choose another one"
        return None
    try:
        with errors_translated(path), contextlib.closing(open_for_reading(path, may_be_older=True)) as connection:
            find_damage(connection, path)
    except StoreError as error:
        return str(error)
    return None


def database_conflict(database: str) -> str | None:
    """Return that another relay has a database, if one has. A file that is missing is not created."""
    if database == MEMORY_URL or not path_of(database).exists():
        return None
    try:
        Lock(path_of(database)).release()
    except StoreError as error:
        return str(error)
    return None
