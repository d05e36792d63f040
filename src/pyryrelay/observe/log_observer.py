"""Which observer writes the log: in the chosen format, to a file of the relay's own, standard output or the journal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO, Any, cast

from twisted.logger import FileLogObserver, ILogObserver, textFileLogObserver

from pyryrelay.config.log_options import LogOptions
from pyryrelay.observe.log_file import RelayLogFile
from pyryrelay.observe.log_formats.journal import JournalObserver, leads_to_journal
from pyryrelay.observe.log_formats.json_lines import json_line
from pyryrelay.observe.log_formats.text_lines import text_line

__all__ = ["file_observer", "output_observer"]


def file_observer(options: LogOptions, file: RelayLogFile) -> ILogObserver:
    """Return the observer that writes to a file."""
    return _observer(options, cast(IO[str], file))


def output_observer(
    options: LogOptions, output: Any = None, environ: Mapping[str, str] | None = None
) -> ILogObserver | None:
    """Return the observer that writes to standard output; None if twistd's own does.

    Call it before twistd replaces `sys.stdout` by its log.
    """
    output = sys.stdout if output is None else output
    if options.log_format == "json":
        return _observer(options, output)
    if options.log_format == "auto" and leads_to_journal(_descriptor(output), environ):
        return JournalObserver(textFileLogObserver(output))
    return None


def _observer(options: LogOptions, output: IO[str]) -> ILogObserver:
    observer: ILogObserver = FileLogObserver(output, json_line if options.log_format == "json" else text_line)
    return observer


def _descriptor(output: Any) -> int:
    try:
        number: int = output.fileno()
    except (AttributeError, OSError, ValueError):
        # It is none of the operating system's files.
        return -1
    return number
