"""The process that the relay runs in: its signals, its start under twistd, its memory, its threads and children."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, execute
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from pyryrelay.logger import Repeats
from pyryrelay.runtime.twisted_internals import replace_stop_handlers, status_pipe

__all__ = [
    "EarlySighup",
    "Threads",
    "abort_start",
    "handle_rotation",
    "handle_signals",
    "handle_stop",
    "ignore_signals",
    "tune_gc",
    "tune_malloc",
    "why_not_started",
]

_log = Logger(namespace="pyryrelay")

_RAISE_PROCESSES: Final = "raise the limit of processes: ulimit -u, LimitNPROC=, TasksMax="
_FIXES: Final = {
    errno.EAGAIN: _RAISE_PROCESSES,
    errno.EMFILE: "raise the limit of open files: ulimit -n, LimitNOFILE=",
    errno.ENOMEM: "raise the limit of memory: ulimit -v, MemoryMax=",
}
TELL_S: Final = 60.0
"""Minimum interval between log lines about threads that cannot be started."""


def why_not_started(error: OSError) -> str:
    """Return why a process could not be started: one line, with what to do where a limit is reached."""
    reason = error.strerror or str(error)
    fix = _FIXES.get(error.errno or 0)
    return f"could not be started: {reason} ({fix})" if fix else f"could not be started: {reason}"


class Threads:
    """Makes calls in the reactor's threads, and in this one if the system lets no thread be started.

    So files are read and written then, too, though the reactor waits for that.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._repeats = Repeats(reactor.seconds, TELL_S)

    def call(self, call: Callable[[], Any]) -> Deferred[Any]:
        """Make a call, and return its result."""
        pool = self._reactor.getThreadPool()
        try:
            return deferToThreadPool(self._reactor, pool, call)
        except RuntimeError as error:
            # The pool keeps threads that were not started, and could not wait for them at its end.
            pool.threads[:] = [thread for thread in pool.threads if thread.ident is not None]
            if self._repeats.due(str(error)) is not None:
                _log.error("no thread can be started, so files delay clients: {reason}", reason=_RAISE_PROCESSES)
            return execute(call)


def abort_start(line: str, twistd_options: Mapping[str, Any]) -> None:
    """Report on standard error and to twistd's parent process that the start failed, and remove the pid file."""
    if sys.__stderr__ is not None:  # sys.stderr is the log by now
        sys.__stderr__.write(f"{line}\n")
    if pidfile := twistd_options.get("pidfile"):
        Path(pidfile).unlink(missing_ok=True)
    if (descriptor := status_pipe(twistd_options)) is not None:
        # The parent of a daemon waits for a message of at most 100 bytes, and does not notice that the daemon ended.
        os.write(descriptor, f"1 {line}".encode("ascii", "backslashreplace")[:100])


class EarlySighup:
    """Remember a SIGHUP that arrives before there is a relay to reload; by default it would end the process.

    A SIGUSR1 is ignored until there is a log file to rotate, and a SIGUSR2 until there is a relay to hand over.
    """

    def __init__(self) -> None:
        self.received = False

    def install(self) -> None:
        """Install the handlers. Only the main thread can; it is also the one in which twistd parses options."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, self._remember)
            # It asks for the log to be rotated, and by default ends the process.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            # It asks for an upgrade, and does the same.
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def _remember(self, number: int, frame: object) -> None:
        self.received = True


def handle_signals(
    reactor: Any,
    end: Callable[[], object],
    reload: Callable[[], object],
    upgrade: Callable[[], object] = lambda: None,
) -> None:
    """Have the reactor call ``end`` on SIGTERM and SIGINT, ``reload`` on SIGHUP, and ``upgrade`` on SIGUSR2.

    Call it before the first port is opened. The reactor makes the calls for signals that arrive before it runs as soon
    as it runs. Its own handlers would let the signal end the process, while an orderly stop is a success. The reactor
    installs them when it starts, so they are replaced on the reactor as well.
    """
    signal.signal(signal.SIGHUP, _handler(reactor, reload))
    signal.signal(signal.SIGUSR2, _handler(reactor, upgrade))
    handle_stop(reactor, end)


def handle_stop(reactor: Any, end: Callable[[], object]) -> None:
    """Have the reactor call ``end`` on SIGTERM and SIGINT; see `handle_signals`."""
    stop = _handler(reactor, end)
    replace_stop_handlers(reactor, stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def handle_rotation(reactor: Any, rotate: Callable[[], object]) -> None:
    """Have the reactor call ``rotate`` on SIGUSR1."""
    signal.signal(signal.SIGUSR1, _handler(reactor, rotate))


def ignore_signals() -> None:
    """Ignore signals once the reactor has stopped, so that they cannot change the exit code or leave the pid file."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _handler(reactor: Any, call: Callable[[], object]) -> Callable[[int, object], None]:
    return lambda number, frame: reactor.callFromThread(call)


YOUNGEST_OBJECTS = 10_000
"""New objects after which the youngest generation is collected, which takes about half a millisecond."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MAPPED_BYTES = 1024 * 1024
KEPT_BYTES = 16 * 1024 * 1024


def tune_malloc(libc: Any = None) -> bool:
    """Reuse the memory of large messages instead of returning it to the system. Returns False without glibc.

    By default, glibc returns free memory at the end of the heap as soon as it is a few hundred KiB. The next large
    message then needs it again, with all pages cleared, which takes longer than relaying the message. With these
    settings `KEPT_BYTES` are kept, and only buffers from `MAPPED_BYTES` on are allocated outside the heap. Settings
    from the environment (``MALLOC_…``, ``GLIBC_TUNABLES``) take precedence: then nothing is changed.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None) if libc is None else libc, "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def tune_gc() -> None:
    """Exclude all existing objects from garbage collection, and collect less often.

    Modules, classes and everything else that the start has created live until the end. Traversing them blocks the
    reactor for about 20 ms each time the oldest generation is collected. Reference counting frees nearly all later
    objects, and one chunk of small frames creates more objects than the default threshold of 700.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST_OBJECTS, *gc.get_threshold()[1:])
