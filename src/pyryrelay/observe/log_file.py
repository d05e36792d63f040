"""The file of twistd's ``--logfile``: it can be rotated from outside, and belongs to the user that the relay becomes.

twistd opens its log file as the user that starts it. With ``--uid`` the file still belongs to root, so the relay could
not rotate it. On SIGUSR1 twistd rotates the file itself, and does nothing if logrotate has moved the file before: it
would go on writing to the moved file.

While the disk is full, lines are lost. What follows them begins on a line of its own, and says how many they were.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger
from twisted.python import threadable

from pyryrelay.runtime.twisted_internals import ReopenableLogFile

__all__ = ["RelayLogFile", "path_of_log"]

_log = Logger(namespace="pyryrelay")

MAX_NUMBER: Final = 99_999
"""The largest number of an old file."""


def logs_elsewhere(twistd_options: Mapping[str, Any]) -> bool:
    """Return whether twistd logs neither to a file nor to standard output with these options."""
    return bool(twistd_options.get("logger") or twistd_options.get("syslog"))


def path_of_log(twistd_options: Mapping[str, Any]) -> Path | None:
    """Return the absolute path of the file that twistd would log to with these options; None if it logs elsewhere."""
    if not twistd_options or logs_elsewhere(twistd_options):
        return None
    name = twistd_options.get("logfile") or ("" if twistd_options.get("nodaemon", True) else "twistd.log")
    return None if name in ("", "-") else Path(os.path.abspath(name))


class RelayLogFile(ReopenableLogFile):
    """See the module's docstring. Raises `OSError` if the file cannot be opened."""

    synchronized = ["write", "rotate", "rotate_or_log"]  # noqa: RUF012

    _lost = 0
    _is_torn = False
    """Whether a line ends in its middle, because the disk was full."""
    _lost_by = ""

    @classmethod
    def at(cls, path: Path, max_bytes: int | None = 1_000_000, keep: int | None = None) -> RelayLogFile:
        """Open the file, and create it if necessary.

        A new one begins when it has ``max_bytes``, and then ``keep`` old ones are kept; None is no limit.
        """
        return cls(path.name, str(path.parent), rotateLength=max_bytes, maxRotatedFiles=keep)

    def listLogs(self) -> list[int]:  # noqa: N802
        """Return the numbers of the old files. Larger ones are dates, and the files are not the relay's to remove."""
        return [number for number in super().listLogs() if number <= MAX_NUMBER]  # type: ignore[no-untyped-call]

    def write(self, data: str | bytes) -> None:
        """Write lines. Those that the disk does not take are lost, and counted in a line when it takes some again."""
        if self.shouldRotate():  # type: ignore[no-untyped-call]
            self.rotate()
        lines = data.encode("utf-8") if isinstance(data, str) else data
        reason = self._append(b"\n" if self._is_torn and os.fstat(self.descriptor).st_size else b"", lines)
        if self._lost and not reason:
            count, self._lost = self._lost, 0
            _log.error("{warning}", warning=f"{count} lines of the log were lost: {self._lost_by}")
        self._lost_by = reason

    def _append(self, end: bytes, lines: bytes) -> str:
        """Write the end of a torn line, and lines, as far as they fit; return why the rest did not, or ""."""
        written, content = 0, end + lines
        try:
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            self._lost += content[max(written, len(end)) :].count(b"\n")
            if written:
                self._is_torn = content[written - 1 : written] != b"\n"
            return error.strerror or str(error)
        finally:
            self.size += written
        self._is_torn = False
        return ""

    def rotate(self) -> None:
        """Start a new file if possible. Called when the file is full; a failure must not lose a line."""
        try:
            self._rotate()
        except OSError:
            self.size = 0  # try again after the same amount of text

    def rotate_or_log(self) -> None:
        """Start a new file, and log an error if that fails."""
        try:
            self._rotate()
        except OSError as error:
            _log.error(
                "{warning}", warning=f"--logfile (of twistd): cannot start a new {self.path!r}: {error.strerror}"
            )

    def _rotate(self) -> None:
        """Reopen the path. If the file is still there, rename it first. Raises `OSError`."""
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
        """Give the file to a user, unless the path is a symbolic link or the file has other names (hard links)."""
        found = os.fstat(self.descriptor)
        named = os.lstat(self.path)
        if stat.S_ISREG(named.st_mode) and os.path.samestat(found, named) and found.st_nlink == 1:
            os.fchown(self.descriptor, uid, gid)


threadable.synchronize(RelayLogFile)
