"""Which observer writes the log."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from twisted.logger import LogEvent, LogLevel

from pyryrelay.config.log_options import LogFormat, LogOptions
from pyryrelay.observe.log_file import RelayLogFile
from pyryrelay.observe.log_formats.journal import JournalObserver
from pyryrelay.observe.log_observer import file_output, standard_output


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
    output = file_output(LogOptions(log_format=log_format), file)
    output.observer(event())
    output.copy(b"from a worker\n")
    file.close()  # type: ignore[no-untyped-call]
    line, copied = (tmp_path / "log").read_text().splitlines(keepends=True)
    assert copied == "from a worker\n"
    assert output.form == ("json" if log_format == "json" else "text")
    if log_format == "json":
        assert json.loads(line)["event"] == "metrics_on"
    else:
        assert line.endswith("[pyryrelay#info] metrics on tcp:1\n")


@pytest.mark.parametrize("log_format", ["auto", "text", "json"])
def test_standard_output(log_format: LogFormat) -> None:
    """Each event is written at once."""
    file = io.StringIO()
    output = standard_output(LogOptions(log_format=log_format), file, {"JOURNAL_STREAM": "1:1"})
    assert output is not None
    output.observer(event())
    assert "tcp:1" in file.getvalue()
    assert output.form == ("json" if log_format == "json" else "text")


def test_standard_output_that_is_closed() -> None:
    """It is left to twistd."""
    assert standard_output(LogOptions(), object()) is None


def test_what_an_encoding_lacks_is_escaped() -> None:
    """A client's text cannot prevent its line."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    output = standard_output(LogOptions(), file)
    assert output is not None
    output.observer({**event(), "endpoint": "\ud800ü"})
    output.copy("[é]\n".encode() + b"\xff\n")
    assert raw.getvalue().endswith(b"metrics on \\ud800\\xfc\n[\\xe9]\n\\xff\n")


def test_lines_of_others_are_lost_if_the_file_fails(tmp_path: Path) -> None:
    """Nothing is raised into what reads them."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    for file in (Full(), io.StringIO()):
        output = standard_output(LogOptions(), file)
        assert output is not None
        file.close()
        output.copy(b"line\n")


@pytest.mark.parametrize(("log_format", "uses_it"), [("auto", True), ("text", False), ("json", False)])
def test_the_journal(log_format: LogFormat, uses_it: bool, tmp_path: Path) -> None:
    """Its fields are used if standard output is the journal and no format was chosen."""
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        output = standard_output(
            LogOptions(log_format=log_format), stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        )
        assert output is not None
        observer = output.observer
        assert isinstance(observer, JournalObserver) == uses_it == (output.form == "journal")
        output.copy(b"of a worker\n")
        if isinstance(observer, JournalObserver):
            observer.close()
    assert (tmp_path / "stream").read_text() == "of a worker\n"
