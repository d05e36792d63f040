"""The log of a worker: it goes through a pipe to the supervisor, whose log it becomes a part of.

See `pyryrelay.observe.log_formats.passed_on` for what is written to the pipe. Times are seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from pyryrelay.observe.log_formats.journal import JournalObserver
from pyryrelay.observe.log_formats.passed_on import block_of, line_of, of_worker
from pyryrelay.observe.log_formats.records import NAMESPACE
from pyryrelay.observe.log_observer import RENDERERS, LogForm

__all__ = ["PipeWriter", "WorkerLog"]

_PIPE_BYTES: Final = 1024 * 1024
HELD_S: Final = 0.02
MAX_HELD_BYTES: Final = 32 * 1024


CallLater: TypeAlias = Callable[[float, Callable[[], None]], IDelayedCall]


class PipeWriter:
    """Writes to a pipe without waiting. The rest of a line that did not fit as a whole is written before the next.

    With ``call_later`` it is also written if there is no next one.
    """

    def __init__(self, descriptor: int, call_later: CallLater | None = None) -> None:
        self._descriptor = descriptor
        self._call_later = call_later
        self._is_called = False
        self._rest = b""
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError, AttributeError):  # a smaller one will do
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self, line: bytes) -> bool:
        """Return whether the line was taken."""
        if self._rest and not self._flush():
            return False
        self._rest = line
        self._flush()
        is_begun = self._rest != line
        if not is_begun:
            self._rest = b""
        self._finish_later()
        return is_begun

    def _finish_later(self) -> None:
        if self._rest and self._call_later is not None and not self._is_called:
            self._is_called = True
            self._call_later(HELD_S, self._finish)

    def _finish(self) -> None:
        self._is_called = False
        if not self._flush():
            self._finish_later()

    def _flush(self) -> bool:
        try:
            self._rest = self._rest[os.write(self._descriptor, self._rest) :]
        except BlockingIOError:
            return False
        except OSError:
            self._rest = b""  # the supervisor has gone, and so will this process
        return not self._rest


@implementer(ILogObserver)
class WorkerLog:
    """The observer of a worker, whose supervisor's log has the given form.

    With ``call_later``, lines are written together after `HELD_S`, as each piece wakes the supervisor, which costs more
    than a line. What is worse than information is written at once, with what waits. Call `flush` at the end. The
    journal takes a worker's entries from the worker itself.
    """

    def __init__(
        self,
        form: LogForm,
        worker: int,
        write: Callable[[bytes], bool],
        call_later: CallLater | None = None,
    ) -> None:
        self._worker = worker
        self._write = write
        self._call_later = call_later
        self._render = RENDERERS.get(form)
        self._hold: Callable[[LogEvent], None] = JournalObserver(self._held) if form == "journal" else self._held
        self._call: IDelayedCall | None = None
        self._lines: list[bytes] = []
        self._bytes = 0
        self._left_out = 0

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.info and str(event.get("log_namespace")).startswith("twisted."):
            return  # that twistd has started and ended; the supervisor says more about it
        self._hold(event if self._render is None else of_worker(event, self._worker))

    def _held(self, event: LogEvent) -> None:
        """Write the line of an event soon."""
        line = self._line(event)
        if line is None:
            return
        self._lines.append(line)
        self._bytes += len(line)
        if self._call_later is None or event.get("log_level") is not LogLevel.info or self._bytes >= MAX_HELD_BYTES:
            self.flush()
        elif self._call is None:
            self._call = self._call_later(HELD_S, self.flush)

    def _line(self, event: LogEvent) -> bytes | None:
        if self._render is None:
            return line_of(event)
        text = self._render(event)
        return text.encode("utf-8", "backslashreplace") if text else None

    def flush(self) -> None:
        """Write the lines that wait."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        lines, self._lines, self._bytes = self._lines, [], 0
        if lines and self._write(self._framed(b"".join([*self._warning(), *lines]))):
            self._left_out = 0
        else:
            self._left_out += len(lines)

    def _framed(self, lines: bytes) -> bytes:
        return lines if self._render is None else block_of(lines)

    def _warning(self) -> list[bytes]:
        if not self._left_out:
            return []
        warning = f"{self._left_out} lines were left out, because the process that writes the log was busy"
        event = {"log_namespace": NAMESPACE, "log_level": LogLevel.warn, "log_format": "{warning}"}
        event |= {"warning": warning, "log_time": time.time()}
        return [self._line(event if self._render is None else of_worker(event, self._worker)) or b""]
