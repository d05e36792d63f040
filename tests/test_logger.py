"""The logger of lines that each connection causes: its events are those of any other logger, without the filter."""

from __future__ import annotations

import pytest
from tests.support.capture import Captured
from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel

from pyryrelay.logger import MAX_THINGS, ErrbackLogger, Repeats, UnfilteredLogger

_log = UnfilteredLogger(namespace="pyryrelay")
UNIQUE = ("log_time", "log_logger")


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error", "critical"])
def test_an_event_is_that_of_any_logger(log: Captured, level: str) -> None:
    """An event has every key that events of other loggers have."""
    getattr(_log, level)("{warning}", warning="look here")
    getattr(Logger(namespace="pyryrelay"), level)("{warning}", warning="look here")
    ours, theirs = ({k: v for k, v in event.items() if k not in UNIQUE} for event in log.events)
    assert ours == theirs
    assert log.events[0]["log_time"] <= log.events[1]["log_time"]
    assert log.events[0]["log_logger"] is _log


def test_levels_are_not_filtered() -> None:
    """Events reach the observer of the logger whatever their level is."""
    captured = Captured()
    UnfilteredLogger(namespace="pyryrelay", observer=captured).debug("line {count}", count=1)
    (event,) = captured.events
    assert (event["log_level"], event["log_format"], event["count"]) == (LogLevel.debug, "line {count}", 1)


def test_a_failure_is_logged_and_handled() -> None:
    """The line has the failure, whose Deferred goes on without it."""
    captured, results = Captured(), list[object]()
    error = ValueError("no")
    done = fail(error).addErrback(ErrbackLogger(namespace="pyryrelay", observer=captured).errback("It failed"))
    done.addCallback(results.append)
    (event,) = captured.events
    assert (event["log_level"], event["log_format"]) == (LogLevel.critical, "It failed")
    assert event["log_failure"].value is error
    assert results == [None]


def test_lines_that_repeat_are_left_out() -> None:
    """One is due when the interval is over, or when it is about something new; it says how many were left out."""
    clock = Clock()
    repeats = Repeats(clock.seconds, 10.0)
    assert [repeats.due("a") for _ in range(3)] == [0, None, None]
    clock.advance(10.0)
    assert [repeats.due(what) for what in ("a", "a", "b", "b", "a")] == [2, None, 1, None, None]
    clock.advance(10.0)
    assert [repeats.due(str(number)) for number in range(MAX_THINGS + 1)] == [2, *[0] * (MAX_THINGS - 1), None]
