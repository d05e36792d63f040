"""The log as JSON: one object on each line, in ASCII, whose first keys are always the same and in the same order.

What clients sent is a JSON string, so it can neither begin a new line nor end its value.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from twisted.logger import LogEvent

from pyryrelay.observe.log_formats.records import Record, record_of

KEYS = ("time", "level", "logger", "event", "message")
"""The keys of every line. ``event`` is left out where it is not a line of the relay's own."""


def json_line(event: LogEvent) -> str | None:
    """Return the line of an event, with its end; None if there is none."""
    record = record_of(event)
    return None if record is None else line_of(record)


def line_of(record: Record) -> str:
    """Return the line of a record. The time is UTC, in the form of RFC 3339."""
    time = datetime.fromtimestamp(record.time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line: dict[str, object] = {"time": time, "level": record.level, "logger": record.logger}
    if record.event:
        line["event"] = record.event
    line["message"] = record.message
    line |= record.fields
    if record.traceback:
        line["traceback"] = record.traceback
    return json.dumps(line, separators=(",", ":")) + "\n"
