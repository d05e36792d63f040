"""All events of a time range in order, as of one moment, for tools. Blocks for as long as it is read."""

from __future__ import annotations

from collections.abc import Iterator

from pyryrelay.nostr.storage.sqlite.database import errors_translated, open_for_reading, path_of

__all__ = ["exported"]


def exported(url: str, since: int | None, until: int | None, *, is_reversed: bool = False) -> Iterator[bytes]:
    """Yield the events of the store of a URL ``sqlite:PATH`` as canonical JSON, the oldest first; or the newest.

    Both times are included. Events of one second come in the order of their ids. It is one read transaction: the log of
    a store that is being written to grows until it ends. Raises `StoreError`.
    """
    path = path_of(url)
    order = "created_at DESC, id" if is_reversed else "created_at, id"
    with errors_translated(path):
        database = open_for_reading(path)
        try:
            database.execute("BEGIN")
            rows = database.execute(
                f"SELECT json FROM event WHERE created_at BETWEEN ? AND ? ORDER BY {order}",
                (0 if since is None else since, (1 << 53) if until is None else until),
            )
            for (json,) in rows:
                yield json
        finally:
            database.close()
