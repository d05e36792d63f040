"""Which observer writes the log."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel

from pyryrelay.config.log_options import LogFormat, LogOptions
from pyryrelay.observe.log_file import RelayLogFile
from pyryrelay.observe.log_formats.journal import JournalObserver
from pyryrelay.observe.log_observer import file_observer, output_observer


def event() -> LogEvent:
    """Return an event of the relay."""
    return {
        "log_time": 0.0,
        "log_level": LogLevel.info,
        "log_namespace": "pyryrelay",
        "log_format": "metrics on {endpoint}",
        "endpoint": "tcp:1",
    }


@pytest.mark.parametrize("log_format", ["auto", "text", "json"])
def test_a_file(log_format: LogFormat, tmp_path: Path) -> None:
    """A file has text or JSON, never the journal's fields."""
    file = RelayLogFile.at(tmp_path / "log")
    file_observer(LogOptions(log_format=log_format), file)(event())
    file.close()  # type: ignore[no-untyped-call]
    line = (tmp_path / "log").read_text()
    if log_format == "json":
        assert json.loads(line)["event"] == "metrics_on"
    else:
        assert line.endswith("[pyryrelay#info] metrics on tcp:1\n")


def test_json_on_standard_output() -> None:
    """Each event is written at once."""
    output = io.StringIO()
    observer = output_observer(LogOptions(log_format="json"), output)
    assert observer is not None
    observer(event())
    assert json.loads(output.getvalue())["endpoint"] == "tcp:1"


@pytest.mark.parametrize("log_format", ["auto", "text"])
def test_text_on_standard_output_is_twistds(log_format: LogFormat) -> None:
    """Then twistd does what it always did, also where standard output is no file, or closed."""
    for output in (io.StringIO(), None, object()):
        assert output_observer(LogOptions(log_format=log_format), output, {"JOURNAL_STREAM": "1:1"}) is None


@pytest.mark.parametrize(("log_format", "uses_it"), [("auto", True), ("text", False), ("json", False)])
def test_the_journal(log_format: LogFormat, uses_it: bool, tmp_path: Path) -> None:
    """Its fields are used if standard output is the journal and no format was chosen."""
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        observer: Any = output_observer(
            LogOptions(log_format=log_format), stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        )
        assert isinstance(observer, JournalObserver) == uses_it
        if uses_it:
            observer.close()
