"""What the structured formats of the log say about an event: never more than its line of text.

The name of an event follows from the literal format of its line, and the fields are those that the format shows. A
format is part of the interface: changing its words changes the name, and docs/reference/logs.md lists the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from string import Formatter
from typing import Final, TypeAlias

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

NAMESPACE: Final = "pyryrelay"
"""The namespace of the relay's own events; others are Twisted's, and have neither a name nor fields."""
WORKER: Final = "log_worker"
"""The key of an event that holds the index of the worker that it comes from."""
MIN_NAME_WORDS, MAX_NAME_WORDS = 2, 6

Value: TypeAlias = str | int | float | bool | None
_Part: TypeAlias = tuple[str, str | None, str | None, str | None]

_PLAIN: Final = frozenset({str, int})
_SPECIAL: Final = frozenset({"log_failure", "log_flattened"})
_WORD: Final = re.compile(r"[a-z0-9]+")
_END: Final = re.compile(r"[(:;]")


@dataclass(frozen=True, slots=True)
class Record:
    """One event: the Unix time, the name of its level, who logged it, its name, its line of text, and its fields."""

    time_s: float
    level: str
    logger: str
    event: str
    message: str
    fields: Mapping[str, Value]
    traceback: str


def record_of(event: LogEvent) -> Record | None:
    """Return what an event says; None if it says nothing, as the line of text would."""
    message = formatEvent(event)
    failure = event.get("log_failure")
    if not message and failure is None:
        return None
    level = event.get("log_level", LogLevel.info)
    namespace = str(event.get("log_namespace", "-"))
    format_, is_ours = event.get("log_format"), namespace == NAMESPACE
    ours = format_ if is_ours and isinstance(format_, str) else ""
    fields = {name: _value(event[name]) for name in shown_fields(ours) if name in event}
    system, worker = event.get("log_system"), event.get(WORKER)
    if worker is not None:
        system, fields = None, {**fields, "worker": worker}
    return Record(
        time_s=float(event.get("log_time", 0.0)),
        level=str(getattr(level, "name", level)),
        logger=namespace if system is None else str(system),
        event=event_name(ours),
        message=message,
        fields=fields,
        traceback=failure.getTraceback() if isinstance(failure, Failure) else "",
    )


@lru_cache(maxsize=256)
def event_name(format_: str) -> str:
    """Return the name of the events with this format; "" if there is no format.

    It is the first words of the format, without the placeholders, up to a colon, a semicolon or a parenthesis, or a
    comma after two words. A format that is nothing but a placeholder is named like it.
    """
    text, names = "", list[str]()
    for literal, name, _, _ in _parts(format_):
        text += literal + " "
        names += [name] if name else []
    words: list[str] = []
    for part in _END.split(text.lower(), maxsplit=1)[0].split(","):
        if len(words) < MIN_NAME_WORDS:
            words += _WORD.findall(part)
    return "_".join(words[:MAX_NAME_WORDS] or names[:1])


@lru_cache(maxsize=256)
def shown_fields(format_: str) -> tuple[str, ...]:
    """Return the names of the fields that a format shows, in order."""
    return tuple(dict.fromkeys(name for _, name, _, _ in _parts(format_) if name))


def plain_fields(event: LogEvent) -> dict[str, str | int] | None:
    """Return the fields that an event shows if all of them are text or numbers, and shown as they are; None otherwise.

    `str.format_map` says the same of these as Twisted's formatter, which takes ten times as long. There is at least one
    field, and text beside it.
    """
    format_ = event.get("log_format")
    if not isinstance(format_, str) or not _SPECIAL.isdisjoint(event):
        return None
    names = _plain_names(format_)
    fields = {name: event[name] for name in names if type(event.get(name, event)) in _PLAIN}
    return fields if fields and len(fields) == len(names) else None


@lru_cache(maxsize=256)
def _plain_names(format_: str) -> tuple[str, ...]:
    """Return the names that a format shows, in order, if it has words and shows each as it is; else nothing."""
    parts = _parts(format_)
    shown = [(name, spec, conversion) for _, name, spec, conversion in parts if name is not None]
    is_plain = all(name.isidentifier() and not spec and not conversion for name, spec, conversion in shown)
    has_words = any(literal for literal, *_ in parts)
    return tuple(dict.fromkeys(name for name, *_ in shown)) if is_plain and has_words else ()


def _parts(format_: str) -> list[_Part]:
    """Return a format's literal texts, each with the field behind it; none of a format that is malformed.

    Libraries may log such a format, and Twisted's formatter says so in the line.
    """
    try:
        return list(Formatter().parse(format_))
    except ValueError:
        return []


def _value(value: object) -> Value:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    return str(value)
