"""The supervisor's part in children that all workers share, such as the one process that writes a database.

Each child gets a listening UNIX socket as its descriptor 3, and ``shared`` as its last argument. Workers connect to
that socket, and exchange the same frames with the child as the owner of a child would on its descriptor 0. Descriptor 0
is here the link to the supervisor, at whose end the child has to end, however many workers are connected.

The supervisor holds the listening sockets as well. So connections of workers wait while a child is started again: at
once if it has ended by itself, and then later and later while it does not live long.

The sockets are in a private folder, which is removed at the end. Those of supervisors that were killed are removed at
the next start. Times are seconds of the reactor's clock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger

from pyryrelay.runtime.child_process import ChildProcess, start_child

__all__ = ["SHARED", "SharedChildren"]

_log = Logger(namespace="pyryrelay")

SHARED: Final = "shared"
"""The last argument of a child that serves several workers."""
PREFIX: Final = "pyryrelay-workers-"
BACKLOG: Final = 64
MAX_DELAY_S: Final = 60.0
LIVED_S: Final = 60.0
"""A child that lived this long did not fail because of how it was started."""
STALE_S: Final = 60.0
"""A folder without sockets is left alone for so long: its supervisor may be about to make them."""
MAX_PATH_BYTES: Final = 100
"""Names of UNIX sockets have 107 bytes at most."""


class _SharedChild:
    """One child, and its successors."""

    def __init__(self, reactor: Any, name: str, arguments: Sequence[str], listening: socket.socket) -> None:
        self._reactor = reactor
        self._name = name
        self._arguments = (*arguments, SHARED)
        self._listening = listening
        self._child: ChildProcess | None = None
        self._failures = 0
        self._started_s = 0.0
        self._restart: Any = None
        self._stopped: Deferred[None] | None = None

    @property
    def pid(self) -> int | None:
        """The number of the process; None if there is none."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        self._restart = None
        self._started_s = self._reactor.seconds()
        self._child = start_child(
            self._reactor, self._arguments, lambda body: None, self._ended, (self._listening.fileno(),)
        )

    def stop(self) -> Deferred[None]:
        """Let the child end; the Deferred fires when it has."""
        self._stopped = stopped = Deferred[None]()
        if self._restart is not None:
            self._restart.cancel()
        if self._child is None:
            self._close()
        else:
            self._child.close()
        return stopped

    def _ended(self, reason: str) -> None:
        self._child = None
        if self._stopped is not None:
            self._close()
            return
        if self._reactor.seconds() - self._started_s >= LIVED_S:
            self._failures = 0
        delay_s = min(2.0 ** (self._failures - 1), MAX_DELAY_S) if self._failures else 0.0
        self._failures += 1
        when = f"in {delay_s:g} s" if delay_s else "at once"
        _log.warn("{warning}", warning=f"{self._name} has ended: {reason}; it is started again {when}")
        self._restart = self._reactor.callLater(delay_s, self.start)

    def _close(self) -> None:
        self._listening.close()
        if self._stopped is not None:
            self._stopped.callback(None)


class SharedChildren:
    """The children that all workers share. ``arguments`` are what Python is started with, by the name of the child.

    `addresses` are the names of their sockets, by the name of the child, once `start` was called. Call that when the
    process has the user that its workers have.
    """

    def __init__(self, reactor: Any, arguments: Mapping[str, Sequence[str]]) -> None:
        self._reactor = reactor
        self._arguments = dict(arguments)
        self._children: dict[str, _SharedChild] = {}
        self._folder: Path | None = None
        self.addresses: dict[str, str] = {}

    @property
    def pids(self) -> Mapping[str, int]:
        """The numbers of the processes that run now, by the name of the child."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    def start(self) -> None:
        """Make the sockets and start the children; does nothing if there are none. Raises `OSError`."""
        if not self._arguments:
            return
        remove_stale_folders(Path(tempfile.gettempdir()))
        self._folder = folder = _private_folder(max(map(len, self._arguments)))
        for name, arguments in self._arguments.items():
            address = str(folder / name)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(address)
            listening.listen(BACKLOG)
            listening.setblocking(False)
            self.addresses[name] = address
            self._children[name] = _SharedChild(self._reactor, name, arguments, listening)
        for child in self._children.values():
            child.start()

    def stop(self) -> Deferred[None]:
        """End all children, which the workers should not need any more; the Deferred fires when they have ended."""
        if self._folder is None:
            return succeed(None)
        ends = [child.stop() for child in self._children.values()]
        return DeferredList(ends).addCallback(self._remove)

    def _remove(self, _: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _private_folder(longest_name: int) -> Path:
    """Make a new folder that only this user may enter, where sockets can have names of that length."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    if len(os.fsencode(folder)) + 1 + longest_name > MAX_PATH_BYTES:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    return folder


def remove_stale_folders(parent: Path) -> None:
    """Remove the folders of supervisors of this user that do not run any more."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if _is_stale(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_stale(folder: Path) -> bool:
    """Tell whether nobody listens on the sockets in a folder. Raises `OSError`."""
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
        return False
    sockets = list(folder.iterdir())
    if not sockets:
        return time.time() - about.st_mtime > STALE_S
    return not any(map(_accepts, sockets))


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # it may be busy
    return True
