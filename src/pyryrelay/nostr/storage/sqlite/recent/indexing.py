"""The writer's part: the ids of recent events, and their way into the indexes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from pyryrelay.nostr.storage.sqlite.schema import ID_BYTES, KEY_BYTES, LOOKUP_BYTES

__all__ = ["RecentIds", "index_recent"]

_PREFIX: Final = f"substr(id, 1, {ID_BYTES})"
_INDEX: Final = (
    f"INSERT INTO by_id SELECT substr(id, 1, {LOOKUP_BYTES}), seq FROM recent ORDER BY id",
    f"INSERT INTO by_time SELECT created_at, {_PREFIX}, seq FROM recent ORDER BY created_at DESC, id",
    f"INSERT INTO by_kind SELECT kind, created_at, {_PREFIX}, seq FROM recent ORDER BY kind, created_at DESC, id",
    f"""
    INSERT INTO by_author SELECT pubkey, kind, created_at, {_PREFIX}, seq FROM recent
    ORDER BY pubkey, kind, created_at DESC, id
    """,
)
"""In the order of the index, neighbours are on the same page, which is changed once."""


class RecentIds:
    """The ``seq`` of each recent event by its id, as the table has them between transactions."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._seqs: dict[bytes, int] | None = None

    def get(self) -> dict[bytes, int]:
        """Return them, to be changed by a transaction that changes the table."""
        if self._seqs is None:
            self._seqs = dict(self._database.execute("SELECT id, seq FROM recent"))
        return self._seqs

    def forget(self) -> None:
        """Read the table again when they are needed, since a transaction was rolled back or ended half-way."""
        self._seqs = None

    def drop(self, removed: Iterable[bytes]) -> None:
        """Drop events that a transaction has removed, if they were recent."""
        if self._seqs:
            for id_ in removed:
                self._seqs.pop(id_, None)


def index_recent(database: sqlite3.Connection) -> None:
    """Move all recent events into the indexes, within a transaction of the caller."""
    for statement in _INDEX:
        database.execute(statement)
    database.executemany("INSERT INTO tag VALUES (?, ?, ?, ?, ?)", sorted(_tags(database)))
    database.execute("DELETE FROM recent")
    database.execute("UPDATE store SET indexed_seq = last_seq")


def _tags(database: sqlite3.Connection) -> Iterator[tuple[bytes, int, bytes, int, int]]:
    for keys, created_at, id_, seq, kind in database.execute(
        f"SELECT keys, created_at, {_PREFIX}, seq, kind FROM recent"
    ):
        for start in range(0, len(keys), KEY_BYTES):
            yield keys[start : start + KEY_BYTES], created_at, id_, seq, kind
