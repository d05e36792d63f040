"""Find and remove files that a killed relay left behind: its pid file, and a ``unix:`` socket with its lock.

twistd and Twisted take a process number for the process that once had it. In a container that is usually wrong: after
a crash, the relay that starts, or some other process, gets the same small number. Therefore this module tests

* for a pid file: whether its writer holds an exclusive lock (``flock``), as a relay does until it ends. Files of
  writers that lock them end with a newline, which twistd never writes. For a file without one, it tests whether the
  process can be as old as the file.
* for a socket: whether it accepts connections.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from pathlib import Path
from typing import Final

__all__ = ["PidFile", "remove_stale_socket"]

ATTEMPTS: Final = 6
"""How often to test a file or socket, so that a process that is just starting can finish its next step meanwhile."""
ATTEMPT_INTERVAL_S: Final = 0.05


def started_at(pid: int) -> float | None:
    """Return when a process was started, by the present wall clock; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return time.time() - age_s


def _may_have_written(pid: int, written_at: float) -> bool:
    """Return whether the process ``pid`` is another one than this and may have existed at ``written_at``."""
    if pid == os.getpid():
        return False
    started = started_at(pid)
    return started is None or started <= written_at


class PidFile:
    """A pid file of twistd, with a lock that tells whether the process in it still runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._locked_fd: int | None = None

    def owner(self) -> int | None:
        """Return the process number of the running relay that holds the lock; None without one."""
        try:
            text, _, is_locked = self._read()
        except OSError:
            return None
        return int(text) if is_locked and text.strip().isdigit() else None

    def is_stale(self) -> bool:
        """Return whether the file exists and its writer has ended. Doubtful cases are left to twistd: then False."""
        text, written_at, is_locked = "", 0.0, False
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(ATTEMPT_INTERVAL_S)
            try:
                text, written_at, is_locked = self._read()
            except OSError:
                return False
            # The file is empty after a crash of the system, and for the moment before it is written.
            if text.strip("\0 \n") or is_locked:
                break
        if is_locked:
            return False
        if not text.strip("\0 \n"):
            return True
        if not text.strip().isdigit():
            return False
        return text.endswith("\n") or not _may_have_written(int(text), written_at)

    def remove(self) -> bool:
        """Remove the file; return whether that was possible."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _read(self) -> tuple[str, float, bool]:
        """Return the text, when it was written, and whether it is locked. Raises `OSError`, also for other files."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            is_locked = False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                is_locked = True
            return file.read(64).decode("ascii", "replace"), found.st_mtime, is_locked

    def lock(self) -> None:
        """Lock the file until this process ends, if it holds this process's number; otherwise do nothing."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.read(descriptor, 64) == str(os.getpid()).encode("ascii"):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.write(descriptor, b"\n")
                    self._locked_fd, descriptor = descriptor, -1
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def give_up(self) -> None:
        """Give the lock back, for another process that writes its number into the file."""
        if self._locked_fd is not None:
            os.close(self._locked_fd)
            self._locked_fd = None

    def take_over(self) -> None:
        """Write this process's number into the file of a process that has given it up. Raises `OSError`."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "wb") as file:
            file.write(str(os.getpid()).encode("ascii"))
        self.lock()


def remove_stale_socket(path: Path) -> bool:
    """Remove a socket file that accepts no connections, and its lock; return whether there was anything to remove.

    Raises `OSError` where that is not allowed.
    """
    lock = path.with_name(f"{path.name}.lock")
    owner, is_socket = _lock_owner(lock), _is_socket(path)
    if is_socket:
        # A process that holds the lock, or none yet, may be about to listen: give it the time.
        if not _refuses_connections(path, 1 if owner == os.getpid() else ATTEMPTS):
            return False
        path.unlink(missing_ok=True)
    elif owner is None or _may_have_written(owner, lock.lstat().st_mtime):
        return False
    if owner is not None:
        lock.unlink(missing_ok=True)
    return True


def _lock_owner(lock: Path) -> int | None:
    """Return the process number in a lock of Twisted's, which is the target of a dangling symbolic link."""
    try:
        target = os.readlink(lock)
    except OSError:
        return None
    return int(target) if target.isdigit() else None


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False


def _refuses_connections(path: Path, attempts: int) -> bool:
    """Return whether all of some attempts to connect are refused."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(ATTEMPT_INTERVAL_S)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            try:
                sock.connect(os.fspath(path))
            except ConnectionRefusedError:
                continue
            except OSError:
                return False
            return False
    return True
