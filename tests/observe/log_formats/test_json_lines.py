"""The log as JSON: one object on each line."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure

from pyryrelay.observe.log_formats.json_lines import KEYS, json_line


def event(**changes: object) -> LogEvent:
    """Return an event of the relay."""
    fields: LogEvent = {
        "log_time": 1_795_306_841.1234,
        "log_level": LogLevel.warn,
        "log_namespace": "pyryrelay",
        "log_format": "closed {server_id!r}: {code}",
        "server_id": "sid",
        "code": 4404,
    }
    return {**fields, **changes}


def test_a_line() -> None:
    """The first keys are always the same; fields follow."""
    assert json_line(event()) == (
        '{"time":"2026-11-22T00:20:41.123Z","level":"warn","logger":"pyryrelay","event":"closed",'
        '"message":"closed \'sid\': 4404","server_id":"sid","code":4404}\n'
    )


def test_no_line() -> None:
    """An event without text has none."""
    assert json_line({}) is None


def test_a_line_of_twisted() -> None:
    """It has no name and no fields."""
    line = json.loads(json_line(event(log_namespace="twisted.web")) or "")
    assert list(line) == [key for key in KEYS if key != "event"]


def test_a_traceback_is_one_line() -> None:
    """Its line ends are escaped."""
    text = json_line(event(log_failure=Failure(RuntimeError("broken"))))
    assert text is not None
    assert text.count("\n") == 1
    assert "RuntimeError" in json.loads(text)["traceback"]


@given(st.text(), st.text())
def test_no_text_leaves_its_place(server_id: str, reason: str) -> None:
    """Whatever a client sends: one line of ASCII, with the keys that it must have, and the text in its field."""
    text = json_line(event(log_format="closed {server_id!r}: {code} {reason}", server_id=server_id, reason=reason))
    assert text is not None
    assert text.isascii()
    assert text[:-1].isprintable()
    line = json.loads(text)
    assert list(line) == [*KEYS, "server_id", "code", "reason"]
    assert (line["server_id"], line["reason"]) == (server_id, reason)
