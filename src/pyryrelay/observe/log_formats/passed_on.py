"""Events of the log that a worker passes on to its supervisor, which writes them as if they were its own.

A worker writes a line of JSON for each event to a pipe. It never waits for the supervisor: if the pipe is full, events
are left out, and counted. Times are Unix times, and an event keeps the one at which it happened.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from pyryrelay.observe.log_formats.records import NAMESPACE, WORKER, plain_fields, record_of

__all__ = ["PassingObserver", "PipeWriter", "event_of", "line_of"]

_TEXT: Final = "text"
_PIPE_BYTES: Final = 1024 * 1024
HELD_S: Final = 0.02
MAX_HELD_BYTES: Final = 32 * 1024
_SPECIAL: Final = frozenset({"log_system", WORKER})
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class RemoteFailure(Failure):
    """A failure in another process, of which only the traceback is known."""

    def __init__(self, text: str) -> None:
        super().__init__(RuntimeError("in another process"))  # type: ignore[no-untyped-call]
        self._text = text

    def getTraceback(self, *arguments: object, **options: object) -> str:  # noqa: N802
        """Return what the other process would have written."""
        return self._text


def line_of(event: LogEvent) -> bytes | None:
    """Return the line of an event; None if it says nothing."""
    content = _content_of_plain(event)
    if content is None:
        record = record_of(event)
        if record is None:
            return None
        format_, fields = event.get("log_format"), record.fields
        is_ours = event.get("log_namespace") == NAMESPACE and isinstance(format_, str)
        # Fields are text or numbers here, which a format with attributes or conversions may show in another way.
        if not is_ours or formatEvent({"log_format": format_, **fields}) != record.message:
            format_, fields = "", {_TEXT: record.message}
        content = [record.time_s, record.level, record.logger, format_, fields, record.traceback]
    return _encode(content).encode("ascii") + b"\n"


def _content_of_plain(event: LogEvent) -> list[object] | None:
    """Return what the line of an event says, if it says the same whoever formats it; None if that has to be tried.

    Nearly all lines are of this kind, and formatting is most of their cost.
    """
    fields = plain_fields(event)
    if fields is None or event.get("log_namespace") != NAMESPACE or not _SPECIAL.isdisjoint(event):
        return None
    level = event.get("log_level", LogLevel.info)
    format_ = event.get("log_format")
    return [float(event.get("log_time", 0.0)), getattr(level, "name", level), NAMESPACE, format_, fields, ""]


def event_of(line: bytes, worker: int) -> LogEvent | None:
    """Return the event of a line of a worker; None if it is something else."""
    try:
        time_s, level, logger, format_, fields, traceback = json.loads(line)
        event: dict[str, Any] = dict(fields)
        event["log_time"] = float(time_s)
        event["log_level"] = LogLevel.lookupByName(level)
    except Exception:  # of any kind: the line may be anything
        return None
    event["log_namespace"], event[WORKER] = str(logger), worker
    # Observers that know nothing of workers show this in the place of the namespace.
    event["log_system"] = f"{logger}#{level} worker {worker}"
    event["log_format"] = str(format_) or f"{{{_TEXT}}}"
    if traceback:
        event["log_failure"] = RemoteFailure(str(traceback))
    return event


class PipeWriter:
    """Writes to a pipe without waiting. The rest of a line that did not fit as a whole is written before the next."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
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
        return is_begun

    def _flush(self) -> bool:
        try:
            self._rest = self._rest[os.write(self._descriptor, self._rest) :]
        except BlockingIOError:
            return False
        except OSError:
            self._rest = b""  # the supervisor has gone, and so will this process
        return not self._rest


@implementer(ILogObserver)
class PassingObserver:
    """The observer of a worker.

    With ``call_later``, lines are written together after `HELD_S`, as each piece wakes the supervisor, which costs more
    than a line. What is worse than information is written at once, with what waits. Call `flush` at the end.
    """

    def __init__(
        self,
        write: Callable[[bytes], bool],
        call_later: Callable[[float, Callable[[], None]], IDelayedCall] | None = None,
    ) -> None:
        self._write = write
        self._call_later = call_later
        self._call: IDelayedCall | None = None
        self._lines: list[bytes] = []
        self._bytes = 0
        self._left_out = 0

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if level is LogLevel.info and str(event.get("log_namespace")).startswith("twisted."):
            return  # that twistd has started and ended; the supervisor says more about it
        line = line_of(event)
        if line is None:
            return
        self._lines.append(line)
        self._bytes += len(line)
        if self._call_later is None or level is not LogLevel.info or self._bytes >= MAX_HELD_BYTES:
            self.flush()
        elif self._call is None:
            self._call = self._call_later(HELD_S, self.flush)

    def flush(self) -> None:
        """Write the lines that wait."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        lines, self._lines, self._bytes = self._lines, [], 0
        if lines and self._write(b"".join([*self._warning(), *lines])):
            self._left_out = 0
        else:
            self._left_out += len(lines)

    def _warning(self) -> list[bytes]:
        if not self._left_out:
            return []
        warning = f"{self._left_out} lines were left out, because the process that writes the log was busy"
        told = {"log_namespace": NAMESPACE, "log_level": LogLevel.warn, "log_format": "{warning}"}
        return [line_of(told | {"warning": warning, "log_time": time.time()}) or b""]
