"""Events that a worker passes on to its supervisor."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, Logger, eventAsText, formatEvent
from zope.interface import implementer

from pyryrelay.observe.log_formats.json_lines import json_line
from pyryrelay.observe.log_formats.passed_on import (
    MAX_BLOCK_BYTES,
    Passed,
    PassedOn,
    block_of,
    event_of,
    line_of,
    of_worker,
)
from pyryrelay.observe.log_formats.records import NAMESPACE
from pyryrelay.observe.log_formats.text_lines import text_line


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


NO_TIMES = [b'[%b,"info","","x",{},""]' % time for time in (b"NaN", b"1e999", b"-1", b"1e11")]


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b"{}", b'[1,"no level","","",{},""]', b'["a","info","","",{},""]', *NO_TIMES]
)
def test_other_lines(line: bytes) -> None:
    """What is no event is none."""
    assert event_of(line, 0) is None


def test_nothing_is_said_about_nothing() -> None:
    """An event without text has no line."""
    assert line_of({"log_format": "", "log_namespace": NAMESPACE}) is None


@given(format_=FORMATS, a=VALUES, b=VALUES)
def test_a_line_that_the_worker_renders(format_: str, a: object, b: object) -> None:
    """It is the line that the supervisor would make of the event, and in JSON the one of one process."""
    log = Log()
    log.logger.info(format_, a=a, b=b)
    event = log.events[0]
    if line_of(event) is None:
        assert text_line(of_worker(event, 3)) is None
        return
    assume(not formatEvent(event).startswith("Unable to format event"))  # it shows the event, whose fields differ
    passed, here = log.passed(), of_worker(event, 3)
    assert text_line(here) == text_line(passed)
    assert json.loads(json_line(here) or "") == {**json.loads(json_line(event) or ""), "worker": 3}


def test_an_event_of_a_legacy_logger() -> None:
    """Its system stands in the place of the namespace, as in one process."""
    event: LogEvent = {"log_system": "HTTP", "log_namespace": "log_legacy", "log_format": "x", "log_time": 0.0}
    assert "[HTTP#info worker 2] x\n" in (text_line(of_worker(event, 2)) or "")


PIECES = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda lines: Passed(is_block=True, content=lines)),
    st.binary(min_size=1, max_size=40)
    .filter(lambda line: b"\n" not in line and b"\0" not in line)
    .map(lambda line: Passed(is_block=False, content=line)),
)


@given(pieces=st.lists(PIECES, max_size=8), cuts=st.lists(st.integers(1, 7)))
def test_what_is_written_is_taken_apart(pieces: list[Passed], cuts: list[int]) -> None:
    """Blocks and lines arrive as they were written, however they are divided."""
    written = b"".join(block_of(one.content) if one.is_block else one.content + b"\n" for one in pieces)
    reader, found, rest = PassedOn(), list[Passed](), written
    for cut in cuts:
        found += reader.feed(rest[:cut])
        rest = rest[cut:]
    found += reader.feed(rest)
    assert found == pieces


@pytest.mark.parametrize(
    "line", [b"\0", b"\0x", b"\0-3", b"\0" + b"9" * 400, b"\x00\xc2\xb2", b"\0%d" % (MAX_BLOCK_BYTES + 1)]
)
def test_lines_that_begin_no_block(line: bytes) -> None:
    """They are lines of something else, and what follows is read on."""
    assert list(PassedOn().feed(line + b"\n" + block_of(b"a\n"))) == [
        Passed(is_block=False, content=line),
        Passed(is_block=True, content=b"a\n"),
    ]


def test_a_line_without_an_end() -> None:
    """What a library prints so is passed on in pieces, and not kept for ever; the next block is read."""
    reader, piece = PassedOn(), b"x" * (MAX_BLOCK_BYTES // 4)
    found = [part for _ in range(9) for part in reader.feed(piece)]
    found += reader.feed(b"\n" + block_of(b"a\n"))
    assert [len(part.content) for part in found] == [len(piece) * 5, len(piece) * 4, 2]
    assert found[-1].is_block
