"""The log of a worker."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, eventAsText

from pyryrelay.observe import worker_log
from pyryrelay.observe.log_formats.journal import JournalObserver
from pyryrelay.observe.log_formats.passed_on import PassedOn, event_of
from pyryrelay.observe.log_observer import LogForm
from pyryrelay.observe.worker_log import HELD_S, MAX_HELD_BYTES, PipeWriter, WorkerLog


def event(text: str, level: LogLevel = LogLevel.info) -> LogEvent:
    """Return an event of the relay."""
    return {
        "log_time": 0.0,
        "log_level": level,
        "log_namespace": "pyryrelay",
        "log_format": "it said {text}",
        "text": text,
    }


def texts_of(form: LogForm, pieces: list[bytes]) -> list[str]:
    """Return the texts of what was written, as the supervisor understands it."""
    found = list[str]()
    for is_block, content in PassedOn().feed(b"".join(pieces)):
        assert is_block == (form != "events")
        if form == "events":
            passed = event_of(content, 0)
            assert passed is not None
            found.append(eventAsText(passed).partition("] ")[2])
        elif form == "json":
            found += [json.loads(line)["message"] for line in content.splitlines()]
        else:
            found += [line.partition("] ")[2] for line in content.decode().splitlines()]
    return found


def taking(pieces: list[bytes]) -> Callable[[bytes], bool]:
    """Return a pipe that takes everything."""

    def write(piece: bytes) -> bool:
        pieces.append(piece)
        return True

    return write


FORMS: tuple[LogForm, ...] = ("events", "text", "json")


@pytest.mark.parametrize("form", FORMS)
def test_lines_that_are_not_taken_are_counted(form: LogForm) -> None:
    """The next line that is taken comes behind one that says how many are missing."""
    pieces = list[bytes]()
    taken = taking(pieces)
    log = WorkerLog(form, 0, lambda piece: is_open and taken(piece))
    for word in ("one", "two", "three"):
        is_open = word == "three"
        log(event(word))
    assert texts_of(form, pieces) == [
        "2 lines were left out, because the process that writes the log was busy",
        "it said three",
    ]


@pytest.mark.parametrize("form", FORMS)
def test_lines_are_written_together(form: LogForm) -> None:
    """Information waits a moment for more of it, unless it is much; a warning waits for nothing."""
    clock, pieces = Clock(), list[bytes]()
    log = WorkerLog(form, 0, taking(pieces), clock.callLater)
    log(event("one"))
    log(event("two"))
    assert pieces == []
    clock.advance(HELD_S)
    log(event("three"))
    log(event("four", LogLevel.warn))
    log(event("x" * MAX_HELD_BYTES))
    log(event("five"))
    assert [len(texts_of(form, [piece])) for piece in pieces] == [2, 2, 1]
    log.flush()
    log.flush()
    clock.advance(1)
    assert [len(texts_of(form, [piece])) for piece in pieces] == [2, 2, 1, 1]
    assert clock.getDelayedCalls() == []


def test_a_line_as_the_log_has_it() -> None:
    """It names the worker, and text that is no UTF-8 is escaped."""
    pieces = list[bytes]()
    WorkerLog("text", 4, taking(pieces))(event("\ud800"))
    assert pieces[0].endswith(b" [pyryrelay#info worker 4] it said \\ud800\n")


def test_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker sends its entries itself; what the journal does not take is a line of text for the supervisor."""
    path = str(tmp_path / "socket")
    made = list[JournalObserver]()

    def connected(fallback: Callable[[LogEvent], None]) -> JournalObserver:
        made.append(JournalObserver(fallback, path))
        return made[-1]

    monkeypatch.setattr(worker_log, "JournalObserver", connected)
    pieces = list[bytes]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        log = WorkerLog("journal", 3, taking(pieces))
        log(event("one"))
        entry = journal.recv(65536)
    assert pieces == []
    assert b"MESSAGE=[pyryrelay#info] it said one\n" in entry
    assert b"PYRYRELAY_WORKER=3\n" in entry
    log(event("two"))
    assert pieces[0].endswith(b" [pyryrelay#info worker 3] it said two\n")
    made[0].close()


def test_twisted_says_nothing_of_its_start() -> None:
    """Each worker would say the same."""
    pieces = list[bytes]()
    log = WorkerLog("text", 0, taking(pieces))
    said: dict[str, Any] = {"log_level": LogLevel.info, "log_namespace": "twisted.x", "log_format": "starting up"}
    log(said)
    assert pieces == []
    log({**said, "log_level": LogLevel.warn, "log_time": 0.0})
    assert len(pieces) == 1


def test_a_pipe_that_is_full() -> None:
    """A line that fits in part is finished before another one, and nothing waits."""
    reading, writing = os.pipe()
    try:
        writer = PipeWriter(writing)
        line = b"x" * 30_000 + b"\n"  # pipes take up to a page whole, or not at all
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


def test_a_rest_does_not_wait_for_the_next_line() -> None:
    """What did not fit is written when there is room, though nothing more is logged."""
    reading, writing = os.pipe()
    clock = Clock()
    try:
        writer = PipeWriter(writing, clock.callLater)
        line = b"x" * 30_000 + b"\n"  # pipes take up to a page whole, or not at all
        count = 0
        while writer.write(line) and not clock.getDelayedCalls():
            count += 1
        clock.advance(HELD_S)
        received = os.read(reading, 1 << 24)
        assert len(received) < len(line) * (count + 1)
        clock.advance(HELD_S)
        assert received + os.read(reading, 1 << 24) == line * (count + 1)
        assert clock.getDelayedCalls() == []
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
