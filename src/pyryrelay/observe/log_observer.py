"""Which observer writes the log: in the chosen format, to a file of the relay's own, standard output or the journal.

A supervisor also writes the lines of its workers, which render them themselves in the same form: formatting would be
most of what a connection costs the supervisor.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, TypeAlias, cast

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from pyryrelay.config.log_options import LogOptions
from pyryrelay.observe.log_file import RelayLogFile
from pyryrelay.observe.log_formats.journal import JournalObserver, leads_to_journal
from pyryrelay.observe.log_formats.json_lines import json_line
from pyryrelay.observe.log_formats.text_lines import text_line

__all__ = ["RENDERERS", "LineObserver", "LogForm", "LogOutput", "file_output", "standard_output"]

LogForm: TypeAlias = Literal["text", "json", "journal", "events"]
"""What a log consists of. ``journal`` has fields, and lines of text where it does not take these; ``events`` are for an
observer of somebody else's."""

Renderer: TypeAlias = Callable[[LogEvent], str | None]
RENDERERS: Final[Mapping[LogForm, Renderer]] = {"text": text_line, "journal": text_line, "json": json_line}
"""What makes the line of an event, with its end, in each form that has lines; it returns None if there is none."""


@implementer(ILogObserver)
class LineObserver:
    """Writes the line of each event to ``output``, a text file, at once."""

    def __init__(self, output: IO[str], render: Renderer) -> None:
        self._output = output
        self._render = render

    def __call__(self, event: LogEvent) -> None:
        if text := self._render(event):
            self._write(text)

    def _write(self, text: str) -> None:
        try:
            self._output.write(text)
        except UnicodeEncodeError:
            encoding = getattr(self._output, "encoding", None) or "utf-8"
            self._output.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._output.flush()

    def copy(self, lines: bytes) -> None:
        """Write lines in UTF-8 that another process has rendered. They are lost if the file does not take them."""
        with contextlib.suppress(OSError, ValueError):
            self._write(lines.decode("utf-8", "backslashreplace"))


@dataclass(frozen=True, slots=True)
class LogOutput:
    """Where the log goes, and in which form. ``copy`` takes lines that another process has rendered in this form."""

    form: LogForm
    observer: ILogObserver
    copy: Callable[[bytes], None]


def file_output(options: LogOptions, file: RelayLogFile) -> LogOutput:
    """Return what writes to a file."""
    return _lines("json" if options.log_format == "json" else "text", cast(IO[str], file))


def standard_output(
    options: LogOptions, output: Any = None, environ: Mapping[str, str] | None = None
) -> LogOutput | None:
    """Return what writes to standard output; None if that cannot be written to, which twistd deals with.

    Call it before twistd replaces `sys.stdout` by its log.
    """
    output = sys.stdout if output is None else output
    if not hasattr(output, "write"):
        return None
    if options.log_format == "json":
        return _lines("json", output)
    lines = _lines("text", output)
    if options.log_format == "auto" and leads_to_journal(_descriptor(output), environ):
        return LogOutput("journal", JournalObserver(lines.observer), lines.copy)
    return lines


def _lines(form: LogForm, output: IO[str]) -> LogOutput:
    observer = LineObserver(output, RENDERERS[form])
    return LogOutput(form, observer, observer.copy)


def _descriptor(output: Any) -> int:
    try:
        number: int = output.fileno()
    except (AttributeError, OSError, ValueError):
        # It is none of the operating system's files.
        return -1
    return number
