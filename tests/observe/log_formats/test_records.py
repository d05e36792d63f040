"""Names and fields of log events, which follow from the formats of their lines."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.capture import captured
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

import pyryrelay
from pyryrelay.guard import client_address
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.log_formats.json_lines import KEYS
from pyryrelay.observe.log_formats.records import NAMESPACE, event_name, record_of, shown_fields
from pyryrelay.observe.log_observer import RENDERERS
from pyryrelay.pyry.log import PyryLog

PACKAGE = Path(pyryrelay.__file__).parent


@cache
def logged_formats() -> set[str]:
    """Return the literal formats of all log calls of the package."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [call.args[0] for call in calls if ast.unparse(call.func).startswith("_log.")]
    return {str(literal.value) for literal in found if isinstance(literal, ast.Constant)}


def event(**changes: object) -> LogEvent:
    """Return an event of the relay."""
    fields: LogEvent = {
        "log_time": 1_700_000_000.25,
        "log_level": LogLevel.info,
        "log_namespace": NAMESPACE,
        "log_format": "refused {client} {status} on {route} ({left_out} more left out)",
        "client": "192.0.2.1",
        "status": 429,
        "route": "client",
        "left_out": 0,
    }
    return {**fields, **changes}


def test_every_event_has_a_name_of_its_own() -> None:
    """Two formats with the same first words need other words; dashboards tell events apart by these names."""
    formats = logged_formats()
    assert len(formats) > 30
    names = [event_name(text) for text in formats]
    assert "" not in names
    assert sorted(names) == sorted(set(names))


def test_no_field_is_called_like_a_key() -> None:
    """Fields stand beside the keys that every line has."""
    fields = {name for text in logged_formats() for name in shown_fields(text)}
    assert fields.isdisjoint({*KEYS, "traceback"})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("refused {client} {status} {reason} on {route} ({left_out} more left out)", "refused_on"),
        ("jailed {client} for {seconds} s, time {count} ({left_out} more left out)", "jailed_for_s"),
        ("{kind} reloaded, {count} entries", "reloaded_entries"),
        ("list not applied: {warning}", "list_not_applied"),
        ("{warning}", "warning"),
        ("binary of {server_id!r} gone, code {code}", "binary_of_gone"),
        ("one two three four five six seven", "one_two_three_four_five_six"),
        ("", ""),
    ],
)
def test_names(text: str, name: str) -> None:
    """A name is the first words of the format, without placeholders."""
    assert event_name(text) == name


def test_what_a_record_says() -> None:
    """Time, level, logger, name, the whole line, and the fields that the line shows."""
    record = record_of(event(secret="not in the format"))
    assert record is not None
    assert (record.time_s, record.level, record.logger, record.event) == (
        1_700_000_000.25,
        "info",
        "pyryrelay",
        "refused_on",
    )
    assert record.message == "refused 192.0.2.1 429 on client (0 more left out)"
    assert record.fields == {"client": "192.0.2.1", "status": 429, "route": "client", "left_out": 0}
    assert record.traceback == ""


def test_events_of_twisted() -> None:
    """They have a line of text, and neither a name nor fields: nobody has reviewed what these may hold."""
    record = record_of(event(log_namespace="twisted.web", log_system=None))
    assert record is not None
    assert (record.logger, record.event, record.fields) == ("twisted.web", "", {})
    legacy = record_of(event(log_namespace="x", log_system="-", log_format="{log_text}", log_text="hello"))
    assert legacy is not None
    assert (legacy.logger, legacy.message) == ("-", "hello")


def test_a_failure_has_its_traceback() -> None:
    """Level, line and traceback are those of the text."""
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        failure = Failure()
    record = record_of(event(log_level=LogLevel.critical, log_format="An application failed", log_failure=failure))
    assert record is not None
    assert (record.level, record.event, record.fields) == ("critical", "an_application_failed", {})
    assert "RuntimeError: broken" in record.traceback


@pytest.mark.parametrize("format_", ["{a!ru", "{", "a } b", "{a!}"])
def test_a_malformed_format_is_told_and_not_raised(format_: str) -> None:
    """A library's mistake costs no line of the log, in any form."""
    told = event(log_format=format_, a=1)
    record = record_of(told)
    assert record is not None
    assert record.message == formatEvent(told) != ""
    assert (record.event, record.fields) == ("", {})
    for render in RENDERERS.values():
        assert (render(told) or "").endswith("\n")


def test_nothing_to_say() -> None:
    """Events without text are left out, as in the text."""
    assert record_of({}) is None
    assert record_of(event(log_format="")) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1, 1), (1.5, 1.5), (True, True), (None, None), ("x", "x"), (float("nan"), "nan"), (b"x", "b'x'"), ([1], "[1]")],
)
def test_values(value: object, shown: object) -> None:
    """Numbers stay numbers if JSON has them, and other values become text."""
    record = record_of(event(status=value))
    assert record is not None
    assert record.fields["status"] == shown


texts = st.text(max_size=20)


@given(texts, texts, st.integers(), st.floats())
def test_nothing_but_the_line(server_id: str, reason: str, code: int, seconds: float) -> None:
    """Each field is in the line of text, whatever its value is."""
    format_ = "closed {server_id!r}: {code} {reason} {seconds}"
    fields = {"server_id": server_id, "reason": reason, "code": code, "seconds": seconds, "hidden": "h1dden"}
    logged = event(log_format=format_, **fields)
    record = record_of(logged)
    assert record is not None
    assert record.message == formatEvent(logged)
    for name, value in record.fields.items():
        assert (repr(value) if name == "server_id" else str(value)) in record.message
    assert "h1dden" not in repr(record)


def test_lines_of_the_relay() -> None:
    """The relay's own log calls become records with their fields."""
    client = client_address("192.0.2.1")
    assert client is not None
    log = EventLog("full", lambda: 0.0)
    with captured() as found:
        log.refused("client", 429, "rate_limit", client)
        PyryLog(log).push_wake_failed("sid", "dropped", "quota", 7)
    first, second = map(record_of, found.events)
    assert first is not None
    assert second is not None
    assert first.fields == {
        "client": "192.0.2.1",
        "status": 429,
        "reason": "rate_limit",
        "route": "client",
        "left_out": 0,
    }
    assert second.event == "push_wake_of"
    assert second.fields["server_id"] == "sid"
