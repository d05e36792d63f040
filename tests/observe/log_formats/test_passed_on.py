"""Events that a worker passes on to its supervisor."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText, formatEvent
from zope.interface import implementer

from pyryrelay.observe.log_formats.json_lines import json_line
from pyryrelay.observe.log_formats.passed_on import (
    HELD_S,
    MAX_HELD_BYTES,
    PassingObserver,
    PipeWriter,
    event_of,
    line_of,
)
from pyryrelay.observe.log_formats.records import NAMESPACE


@implementer(ILogObserver)
class Log:
    """What is logged, as events."""

    def __init__(self, namespace: str = NAMESPACE) -> None:
        self.events: list[LogEvent] = []
        self.logger = Logger(namespace=namespace, observer=self)

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    def passed(self, worker: int = 3) -> LogEvent:
        """Return the last event as the supervisor has it."""
        line = line_of(self.events[-1])
        assert line is not None
        assert line.count(b"\n") == 1
        event = event_of(line.rstrip(), worker)
        assert event is not None
        return event


def test_a_line_of_the_relay() -> None:
    """The supervisor writes the same line with the worker's index, and JSON has the same name and fields."""
    log = Log()
    log.logger.info("refused {client} {status} ({left_out} more left out)", client="::1", status=429, left_out=0)
    event = log.passed()
    assert "[pyryrelay#info worker 3] refused ::1 429 (0 more left out)" in eventAsText(event)
    before, after = json.loads(json_line(log.events[0]) or ""), json.loads(json_line(event) or "")
    assert after == {**before, "worker": 3}


FORMATS = st.lists(
    st.sampled_from(["{a}", "{b}", "{a!r}", "{b:>4}", "{a.imag}", "{a()}", "{}", "{0}", "{{", " said ", "{c}", "ü\n"])
).map("".join)
VALUES = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers(), max_size=2))


@given(format_=FORMATS, a=VALUES, b=VALUES)
def test_any_line(format_: str, a: object, b: object) -> None:
    """Whatever a format shows, the supervisor shows the same text."""
    log = Log()
    log.logger.info(format_, a=a, b=b)
    said = formatEvent(log.events[0])
    if said:
        assert formatEvent(log.passed()) == said
    else:
        assert line_of(log.events[0]) is None


def test_a_line_of_another_program() -> None:
    """Only its text is known."""
    log = Log("somewhere")
    log.logger.error("about {thing}", thing=["x\ny"])
    event = log.passed()
    assert "[somewhere#error worker 3] about ['x\\ny']" in eventAsText(event)
    assert json.loads(json_line(event) or "")["logger"] == "somewhere"


def test_a_format_that_shows_more_than_text() -> None:
    """A format whose fields are no plain values is passed on as text."""
    log = Log()
    log.logger.info("about {thing.imag}", thing=3)
    assert "[pyryrelay#info worker 3] about 0" in eventAsText(log.passed())


def test_a_failure() -> None:
    """Its traceback is written by the supervisor."""
    log = Log()
    try:
        raise KeyError("deep inside")
    except KeyError:
        log.logger.failure("It failed")
    event = log.passed()
    assert "KeyError: 'deep inside'" in eventAsText(event)
    assert "deep inside" in json.loads(json_line(event) or "")["traceback"]


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"{}", b'[1,"no level","","",{},""]', b'["a","info","","",{},""]'])
def test_other_lines(line: bytes) -> None:
    """What is no event is none."""
    assert event_of(line, 0) is None


def test_nothing_is_said_about_nothing() -> None:
    """An event without text has no line."""
    assert line_of({"log_format": "", "log_namespace": NAMESPACE}) is None


def test_lines_that_are_not_taken_are_counted() -> None:
    """The next line that is taken comes behind one that says how many are missing."""
    log, is_full = Log(), True
    lines: list[bytes] = []

    def write(line: bytes) -> bool:
        if not is_full:
            lines.append(line)
        return not is_full

    observer = PassingObserver(write)
    for word in ("one", "two", "three"):
        log.logger.info("{warning}", warning=word)
        if word == "three":
            is_full = False
        observer(log.events[-1])
    texts = [eventAsText(event) for line in b"".join(lines).splitlines() if (event := event_of(line, 0))]
    assert [text.partition("] ")[2] for text in texts] == [
        "2 lines were left out, because the process that writes the log was busy",
        "three",
    ]


def test_lines_are_written_together() -> None:
    """Information waits a moment for more of it, unless it is much; a warning waits for nothing."""
    log, clock, lines = Log(), Clock(), list[bytes]()

    def write(piece: bytes) -> bool:
        lines.append(piece)
        return True

    observer = PassingObserver(write, clock.callLater)

    def say(level: str, text: str) -> None:
        getattr(log.logger, level)("it said {text}", text=text)
        observer(log.events[-1])

    say("info", "one")
    say("info", "two")
    assert lines == []
    clock.advance(HELD_S)
    say("info", "three")
    say("warn", "four")
    say("info", "x" * MAX_HELD_BYTES)
    say("info", "five")
    assert [piece.count(b"\n") for piece in lines] == [2, 2, 1]
    observer.flush()
    observer.flush()
    clock.advance(1)
    assert [piece.count(b"\n") for piece in lines] == [2, 2, 1, 1]
    assert clock.getDelayedCalls() == []


def test_twisted_says_nothing_of_its_start() -> None:
    """Each worker would say the same."""
    lines: list[bytes] = []

    def write(line: bytes) -> bool:
        lines.append(line)
        return True

    observer = PassingObserver(write)
    event: dict[str, Any] = {"log_level": LogLevel.info, "log_namespace": "twisted.x", "log_format": "starting up"}
    observer(event)
    assert lines == []
    observer({**event, "log_level": LogLevel.warn})
    assert len(lines) == 1


def test_a_pipe_that_is_full() -> None:
    """A line that fits in part is finished before another one, and nothing waits."""
    reading, writing = os.pipe()
    try:
        writer = PipeWriter(writing)
        line = b"x" * 3000 + b"\n"
        count = 0
        while writer.write(line):
            count += 1
        assert not writer.write(line)
        received = os.read(reading, 1 << 24)
        assert writer.write(b"last\n")
        received += os.read(reading, 1 << 24)
        assert received == line * count + b"last\n"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_pipe_that_nobody_reads() -> None:
    """The end of the other process is no error here."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        PipeWriter(writing).write(b"line\n")
    finally:
        os.close(writing)
