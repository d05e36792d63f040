"""What a relay leaves behind that was killed: its pid file, and the socket file of a ``unix:`` endpoint with its lock.

twistd and Twisted take a number for the process that once had it. In a container that is nearly always wrong: after a
crash the same small numbers belong to the relay that starts, or to whatever else starts there. So what counts here is

* for a pid file: an exclusive lock (``flock``) that the relay holds for as long as it lives. A file whose writer holds
  locks ends with a newline, which twistd never writes; where there is none, a process counts that can have been there
  when the file was written;
* for a socket: whether anybody accepts connections.
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

__all__ = ["PidFile", "remove_dead_socket"]

LOOKS: Final = 6
"""How often to look, so that a process that is just starting gets from one step to the next."""
LOOK_S: Final = 0.05


def started_at(pid: int) -> float | None:
    """When a process was started, by the wall clock of now; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return time.time() - age_s


def _can_be_of(pid: int, since: float) -> bool:
    """Whether a process with this number that was there at the time `since` can still be there, and is not this one."""
    if pid == os.getpid():
        return False
    started = started_at(pid)
    return started is None or started <= since


class PidFile:
    """The pid file of twistd, which knows whether the process in it is still there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def owner(self) -> int | None:
        """The running relay that holds the file; None where nobody is known to."""
        try:
            text, _, is_locked = self._read()
        except OSError:
            return None
        return int(text) if is_locked and text.strip().isdigit() else None

    def is_dead(self) -> bool:
        """Whether the file is there and whoever wrote it is not. What is in doubt is left to twistd to judge."""
        text, written_at, is_locked = "", 0.0, False
        for look in range(LOOKS):
            if look:
                time.sleep(LOOK_S)
            try:
                text, written_at, is_locked = self._read()
            except OSError:
                return False
            # Nothing is in it after a crash of the system, or for the moment before it is written.
            if text.strip("\0 \n") or is_locked:
                break
        if is_locked:
            return False
        if not text.strip("\0 \n"):
            return True
        if not text.strip().isdigit():
            return False
        return text.endswith("\n") or not _can_be_of(int(text), written_at)

    def remove(self) -> bool:
        """Remove it; whether that was possible."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _read(self) -> tuple[str, float, bool]:
        """Its text, when it was written, and whether it is locked. Raises `OSError`, also for what is no file."""
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

    def hold(self) -> None:
        """Show that this process lives, for as long as it does, if it is the one in the file; else do nothing."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.read(descriptor, 64) == str(os.getpid()).encode("ascii"):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.write(descriptor, b"\n")
                    self._held, descriptor = descriptor, -1
            finally:
                if descriptor >= 0:
                    os.close(descriptor)


def remove_dead_socket(path: Path) -> bool:
    """Remove a socket file on which nobody accepts, and its lock; whether there was anything to remove.

    Raises `OSError` where that is not allowed.
    """
    lock = path.with_name(f"{path.name}.lock")
    holder, is_socket = _holder(lock), _is_socket(path)
    if is_socket:
        # Whoever has the lock, or is about to listen without one, is given the time for it.
        if not _is_refused(path, 1 if holder == os.getpid() else LOOKS):
            return False
        path.unlink(missing_ok=True)
    elif holder is None or _can_be_of(holder, lock.lstat().st_mtime):
        return False
    if holder is not None:
        lock.unlink(missing_ok=True)
    return True


def _holder(lock: Path) -> int | None:
    """The number in a lock of Twisted's, which is a link to nowhere."""
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


def _is_refused(path: Path, looks: int) -> bool:
    """Whether nobody listens, however often one looks."""
    for look in range(looks):
        if look:
            time.sleep(LOOK_S)
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
