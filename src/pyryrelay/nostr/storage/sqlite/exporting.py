"""All events of a time range in order, as of one moment, for tools. Blocks for as long as it is read."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import Final, TypeAlias

from pyryrelay.nostr.storage.sqlite.database import errors_translated, open_for_reading, path_of
from pyryrelay.nostr.storage.sqlite.schema import ID_BYTES

__all__ = ["exported"]

_Row: TypeAlias = tuple[int, bytes, bytes]
_STATEMENT: Final = """
    SELECT created_at, id, (SELECT json FROM event WHERE event.seq = found.seq)
    FROM (SELECT created_at, {id}, seq FROM {table} WHERE created_at BETWEEN ? AND ?) AS found ORDER BY {order}
"""


def exported(url: str, since: int | None, until: int | None, *, is_reversed: bool = False) -> Iterator[bytes]:
    """Yield the events of the store of a URL ``sqlite:PATH`` as canonical JSON, the oldest first; or the newest.

    Both times are included. Events of one second come in the order of their ids. It is one read transaction: the log of
    a store that is being written to grows until it ends. Raises `StoreError`.
    """
    path = path_of(url)
    times = (0 if since is None else since, (1 << 53) if until is None else until)
    order = "created_at DESC, id" if is_reversed else "created_at, id"
    with errors_translated(path):
        database = open_for_reading(path)
        try:
            database.execute("BEGIN")
            indexed, recent = (
                database.execute(_STATEMENT.format(table=table, id=id_, order=order), times)
                for table, id_ in (("by_time", "id"), ("recent", f"substr(id, 1, {ID_BYTES}) AS id"))
            )
            for _, _, json in merge(indexed, recent, key=_newest_first if is_reversed else _oldest_first):
                yield json
        finally:
            database.close()


def _newest_first(row: _Row) -> tuple[int, bytes]:
    return -row[0], row[1]


def _oldest_first(row: _Row) -> tuple[int, bytes]:
    return row[0], row[1]
