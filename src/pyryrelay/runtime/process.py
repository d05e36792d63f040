"""The process that the relay runs in: its signals, and whoever waits for a word from it."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "EarlyHangup",
    "give_up",
    "handle_rotation",
    "handle_signals",
    "ignore_signals",
    "tune_collector",
    "tune_malloc",
]


def give_up(line: str, twistd_options: Mapping[str, Any]) -> None:
    """Tell whoever started this process that it will not run, and leave nothing behind."""
    if sys.__stderr__ is not None:  # sys.stderr is the log by now
        sys.__stderr__.write(f"{line}\n")
    if pidfile := twistd_options.get("pidfile"):
        Path(pidfile).unlink(missing_ok=True)
    status_pipe = twistd_options.get("statusPipe")
    if status_pipe is not None:
        # The parent of a daemon waits for a word from it, of at most 100 bytes, and cannot see it end.
        os.write(status_pipe, f"1 {line}".encode("ascii", "backslashreplace")[:100])


class EarlyHangup:
    """A SIGHUP before there is a relay that could reload: it is remembered, where it would have ended the process.

    A SIGUSR1 is ignored until there is a log that could be rotated.
    """

    def __init__(self) -> None:
        self.came = False

    def watch(self) -> None:
        """Remember it from now on. Threads cannot, and in no thread but the main one does twistd parse options."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, self._remember)
            # An order to rotate the log, which ends a process that does not know it.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _remember(self, number: int, frame: object) -> None:
        self.came = True


def handle_signals(reactor: Any, end: Callable[[], object], reload: Callable[[], object]) -> None:
    """Have the reactor call `end` on SIGTERM and SIGINT, and `reload` on SIGHUP, as daemons do.

    Call it before the first port is open; what comes before the reactor runs, it calls as soon as it does. Its own
    handlers would end the process by the signal, while an orderly end is a success. It installs them when it starts,
    so they are replaced in the reactor, too.
    """
    signal.signal(signal.SIGHUP, _handler(reactor, reload))
    reactor.sigTerm = reactor.sigInt = stop = _handler(reactor, end)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def handle_rotation(reactor: Any, rotate: Callable[[], object]) -> None:
    """Have the reactor call `rotate` on SIGUSR1."""
    signal.signal(signal.SIGUSR1, _handler(reactor, rotate))


def ignore_signals() -> None:
    """Let no signal change the exit code, or keep the pid file from being removed, once the reactor has stopped."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _handler(reactor: Any, call: Callable[[], object]) -> Callable[[int, object], None]:
    return lambda number, frame: reactor.callFromThread(call)


YOUNG_OBJECTS = 10_000
"""New objects after which the youngest are looked through: half a millisecond's work."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MAPPED_BYTES = 1024 * 1024
KEPT_BYTES = 16 * 1024 * 1024


def tune_malloc(libc: Any = None) -> bool:
    """Have memory of large messages used again instead of giving it back; False where the C library is not GNU's.

    By default what is free at the end of the heap goes back to the system as soon as it is some hundred KiB, and comes
    back with the next large message, all of its pages cleared: that costs more than relaying what is in it. Now
    `KEPT_BYTES` of it are kept, and buffers are not part of the heap from `MAPPED_BYTES` on. Whoever has set this up in
    the environment (``MALLOC_…``, ``GLIBC_TUNABLES``) knows better.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None) if libc is None else libc, "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def tune_collector() -> None:
    """Take everything that exists by now out of the garbage collector's sight, and have it look less often.

    Modules, classes and what the start made stay until the end, and looking through them holds the reactor for some
    20 ms each time that the oldest generation is collected. What comes later is nearly all freed without the collector,
    and one chunk of small frames makes more objects than the 700 after which it looks by default.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
