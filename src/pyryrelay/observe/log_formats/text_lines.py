"""Lines of text, as Twisted's own observer writes them, in less time: each upgrade and each end of one has a line."""

from __future__ import annotations

from functools import lru_cache
from math import floor

from twisted.logger import LogEvent, formatEventAsClassicLogText, formatTime

from pyryrelay.observe.log_formats.records import plain_fields

__all__ = ["text_line"]


def text_line(event: LogEvent) -> str | None:
    """Return the line of an event, with its end; None if it says nothing. The time is the local one, in seconds."""
    fields, time_s = plain_fields(event), event.get("log_time")
    if fields is None or time_s is None:
        return formatEventAsClassicLogText(event)
    system = event.get("log_system")
    if system is None:
        level = event.get("log_level")
        system = f"{event.get('log_namespace', '-')}#{'-' if level is None else level.name}"
    second = floor(time_s)
    # Twisted rounds to microseconds before it cuts them off.
    second += round((time_s - second) * 1e6) == 1_000_000
    text = f"{_time_of(second)} [{system}] {event['log_format'].format_map(fields)}"
    return text.replace("\n", "\n\t") + "\n"


@lru_cache(maxsize=2)
def _time_of(second: int) -> str:
    return formatTime(float(second))
