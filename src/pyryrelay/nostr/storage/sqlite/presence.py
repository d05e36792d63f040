"""Notice that the files of a database were removed, replaced or cut while it is open."""

from __future__ import annotations

import os
from pathlib import Path

from pyryrelay.nostr.storage.interface import StoreError

__all__ = ["Presence"]


class Presence:
    """Whether the file that a writer has opened is still the one at its path.

    What is written to a file that was removed or replaced ends with the process, so nobody may be told that it is
    stored. A file that was cut is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log_path = Path(f"{path}-wal")
        self._opened = path.stat()
        self._opened_log = self._log()
        self._size: int | None = 0

    def check(self) -> None:
        """Raise `StoreError` if the file is gone, is another one, or is smaller than when it was checked before."""
        try:
            found = self._path.stat()
        except OSError:
            raise StoreError(f"database {str(self._path)!r} was removed: restore it, and restart the relay") from None
        if (found.st_dev, found.st_ino) != (self._opened.st_dev, self._opened.st_ino):
            raise StoreError(f"database {str(self._path)!r} was replaced: restart the relay, which opens the new file")
        if self._size is None:
            return
        if found.st_size < self._size:
            raise StoreError(
                f"database {str(self._path)!r}: it was cut, and is damaged: restore a backup, and restart the relay"
            )
        self._size = found.st_size

    def check_log(self) -> None:
        """Raise `StoreError` if the log is gone, or is another one than at first.

        It is there from the first transaction on until the last connection is closed. What is written to a log that was
        removed ends with the process, unless it is copied to the database before.
        """
        found = self._log()
        if self._opened_log is None:
            self._opened_log = found
        elif found is None or not os.path.samestat(found, self._opened_log):
            raise StoreError(f"the log of database {str(self._path)!r} was removed or replaced: restart the relay")

    def _log(self) -> os.stat_result | None:
        try:
            return self._log_path.stat()
        except OSError:
            return None

    def may_shrink(self) -> None:
        """Do not look at the size any more: a compacted file gets smaller, at once or much later."""
        self._size = None
