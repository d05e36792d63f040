"""The file behind ``--logfile`` of twistd: it can be moved away, and it belongs to whom the relay becomes.

twistd opens its log as whoever starts it, and hands nothing over. With ``--uid`` the file stays root's, so it is never
rotated. It takes SIGUSR1 for an order to rotate, and does nothing where the file was moved away before, as logrotate
does it: the relay goes on writing to the moved file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from twisted.python import threadable

from pyryrelay.runtime.twisted_internals import ReopenableLogFile

__all__ = ["RelayLogFile", "path_of_log"]

_log = Logger(namespace="pyryrelay")


def path_of_log(twistd_options: Mapping[str, Any]) -> Path | None:
    """The file that twistd would log to with these options; None where it logs elsewhere. It is absolute."""
    if not twistd_options or twistd_options.get("logger") or twistd_options.get("syslog"):
        return None
    name = twistd_options.get("logfile") or ("" if twistd_options.get("nodaemon", True) else "twistd.log")
    return None if name in ("", "-") else Path(os.path.abspath(name))


class RelayLogFile(ReopenableLogFile):
    """See the module's docstring. Raises `OSError` where the file cannot be opened."""

    synchronized = ["rotate", "rotate_or_tell"]  # noqa: RUF012

    @classmethod
    def at(cls, path: Path) -> RelayLogFile:
        """Open the file, and make it if need be."""
        return cls(path.name, str(path.parent))

    def rotate(self) -> None:
        """Begin a new file, if possible. Called when the file is full; no line may be lost because that fails."""
        try:
            self._rotate()
        except OSError:
            self.size = 0  # tried again when as much has been written once more

    def rotate_or_tell(self) -> None:
        """Begin a new file; where that fails, a line says so."""
        try:
            self._rotate()
        except OSError as error:
            _log.error(
                "{warning}", warning=f"--logfile (of twistd): cannot begin a new {self.path!r}: {error.strerror}"
            )

    def _rotate(self) -> None:
        """Open the name anew where this file was moved away, and else move it away first. Raises `OSError`."""
        if not self._is_in_place():
            self.reopen()
            return
        if not os.access(self.directory, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        try:
            super().rotate()  # type: ignore[no-untyped-call]
        finally:
            self.reopen_if_closed()

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def hand_over(self, uid: int, gid: int) -> None:
        """Give the file to a user, unless it is another's by name only: a link, or one of several names of a file."""
        found = os.fstat(self.descriptor)
        named = os.lstat(self.path)
        if stat.S_ISREG(named.st_mode) and os.path.samestat(found, named) and found.st_nlink == 1:
            os.fchown(self.descriptor, uid, gid)


threadable.synchronize(RelayLogFile)
