"""Events of the log that a worker passes on to its supervisor, which writes them as if they were its own.

A worker writes to a pipe, and never waits for the supervisor: if the pipe is full, events are left out, and counted.
What it writes is either

* blocks of lines as the log has them, which the supervisor copies: ``\\0``, the length in bytes in decimal, ``\\n``,
  and the lines in UTF-8. Several lines make one block, since each wakes the supervisor; or
* where the supervisor's log is not made of lines that the worker could render: a line of JSON for each event.

Whatever else comes through the pipe was printed by some library. Times are Unix times, and an event keeps the one at
which it happened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

from pyryrelay.observe.log_formats.records import NAMESPACE, WORKER, plain_fields, record_of

__all__ = ["Passed", "PassedOn", "block_of", "event_of", "line_of", "of_worker"]

_TEXT: Final = "text"
_SPECIAL: Final = frozenset({"log_system", WORKER})
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_MARK: Final = b"\0"
MAX_BLOCK_BYTES: Final = 16 * 1024 * 1024
"""The largest block that is believed to be one."""
_NO_TIME_S: Final = 1e11
"""Years that have more than four digits cannot be written."""
_MAX_DIGITS: Final = len(str(MAX_BLOCK_BYTES))


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
        if not 0 <= event["log_time"] < _NO_TIME_S:
            return None
        event["log_level"] = LogLevel.lookupByName(level)
    except Exception:  # of any kind: the line may be anything
        return None
    event |= _origin(str(logger), level, worker)
    event["log_format"] = str(format_) or f"{{{_TEXT}}}"
    if traceback:
        event["log_failure"] = RemoteFailure(str(traceback))
    return event


def of_worker(event: LogEvent, worker: int) -> LogEvent:
    """Return an event that happened in this process as the one of a worker, as `event_of` would."""
    level = event.get("log_level", LogLevel.info)
    logger = event.get("log_system")
    logger = event.get("log_namespace", "-") if logger is None else logger
    return event | _origin(str(logger), getattr(level, "name", level), worker)


def _origin(logger: str, level: object, worker: int) -> dict[str, Any]:
    # Observers that know nothing of workers show the last one in the place of the namespace.
    return {"log_namespace": logger, WORKER: worker, "log_system": f"{logger}#{level} worker {worker}"}


def block_of(lines: bytes) -> bytes:
    """Return a block of lines."""
    return b"%b%d\n%b" % (_MARK, len(lines), lines)


class Passed(NamedTuple):
    """A piece of what a worker wrote: whole lines of the log with their ends, or one other line without its end."""

    is_block: bool
    content: bytes


class PassedOn:
    """Takes apart what a worker writes, however it is divided.

    Holds at most one unfinished block or line. A line that is longer than `MAX_BLOCK_BYTES` is several.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0
        """How many bytes of a block are still to come."""
        self._line_bytes = 0

    def feed(self, data: bytes) -> Iterator[Passed]:
        """Return what is complete now."""
        while data:
            if self._missing:
                taken, data = data[: self._missing], data[self._missing :]
                self._pieces.append(taken)
                self._missing -= len(taken)
                if not self._missing:
                    yield Passed(is_block=True, content=self._joined())
                continue
            line, end, data = data.partition(b"\n")
            self._pieces.append(line)
            self._line_bytes += len(line)
            if end or self._line_bytes > MAX_BLOCK_BYTES:
                whole = self._joined()
                self._missing = _length(whole)
                self._line_bytes = 0
                if whole and not self._missing:
                    yield Passed(is_block=False, content=whole)

    def _joined(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _length(line: bytes) -> int:
    """Return the length of the block that a line begins; 0 if it begins none."""
    digits = line[1:]
    if not line.startswith(_MARK) or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return 0
    length = int(digits)
    return length if length <= MAX_BLOCK_BYTES else 0
