"""The process of a worker, as its supervisor sees it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from tests.support.capture import captured
from tests.support.worker_processes import FakeProcess, StartingReactor, greeting

from pyryrelay.observe.log_formats.passed_on import block_of
from pyryrelay.workers.starting.process import END_S, WorkerProcess


class Place:
    """A worker that was started, and what has become of it."""

    def __init__(self, is_greeted: bool = True) -> None:
        self.reactor = StartingReactor()
        self.outcomes: list[str] = []
        self.worker = WorkerProcess(self.reactor)
        self.worker.expect(1, self.outcomes.append)
        self.ours, self.theirs = socket.socketpair()
        self.process = FakeProcess(100, self.worker, [], {})
        if is_greeted:
            self.worker.has_started(self.process, self.ours)
            self.worker.greet(greeting(1, 5))

    def close(self) -> None:
        """Close what is left open."""
        self.ours.close()
        self.theirs.close()
        self.reactor.close()


@pytest.fixture
def place() -> Iterator[Place]:
    """A worker that was greeted."""
    made = Place()
    yield made
    made.close()


@pytest.fixture
def early() -> Iterator[Place]:
    """A worker that has no process yet."""
    made = Place(is_greeted=False)
    yield made
    made.close()


def test_the_end_is_reported_once(place: Place) -> None:
    """However the end of the process and of the connection follow each other; the number stays known."""
    place.process.end()
    place.reactor.links[0].connectionLost()
    assert place.outcomes == []
    place.reactor.advance(0)
    place.reactor.advance(END_S)
    assert place.outcomes == ["signal 9"]
    assert place.worker.rpc.is_lost
    assert place.worker.pid == 100


def test_a_process_without_connection_is_killed(place: Place) -> None:
    """Nobody can tell it anything any more."""
    place.reactor.links[0].connectionLost()
    place.reactor.advance(END_S)
    assert place.process.signals == ["KILL"]
    place.process.end()
    place.reactor.advance(0)
    assert place.outcomes == ["signal 9"]


def test_a_process_that_cannot_be_started(early: Place) -> None:
    """It is reported in a later turn, like one that has ended."""
    early.worker.not_started("no room")
    assert (early.outcomes, early.worker.pid) == ([], 0)
    early.reactor.advance(0)
    assert early.outcomes == ["no room"]
    early.worker.kill()
    early.reactor.advance(END_S)
    assert len(early.outcomes) == 1


def test_one_that_is_killed_before_it_is_there(early: Place) -> None:
    """It is reported, ends as soon as it is there, and is told nothing."""
    early.worker.kill()
    early.reactor.advance(0)
    assert early.outcomes == ["killed before it was started"]
    early.worker.has_started(early.process, early.ours)
    early.worker.greet(greeting(1, 5))
    assert early.process.signals == ["KILL"]
    assert early.theirs.recv(1) == b""
    early.process.end()
    early.reactor.advance(0)
    assert len(early.outcomes) == 1


def test_one_that_cannot_be_connected(early: Place) -> None:
    """Without a descriptor for the reactor's copy of the connection it is killed."""
    early.reactor.is_full = True
    early.worker.has_started(early.process, early.ours)
    early.worker.greet(greeting(1, 5))
    early.reactor.advance(0)
    assert early.process.signals == ["KILL"]
    assert early.outcomes == ["the sockets cannot be passed: Too many open files"]
    assert early.ours.fileno() == -1


def test_one_that_does_not_listen(early: Place) -> None:
    """It cannot become a worker, so it is killed."""
    early.theirs.close()
    early.worker.has_started(early.process, early.ours)
    early.worker.greet(greeting(1, 5))
    early.reactor.advance(0)
    assert early.process.signals == ["KILL"]
    assert early.outcomes == ["the sockets cannot be passed: Broken pipe"]


def test_what_it_logs(place: Place) -> None:
    """Events are written with its index, in whatever pieces they arrive, and other lines as they are."""
    line = json.dumps([1.0, "info", "pyryrelay", "{warning}", {"warning": "hello"}, ""]).encode() + b"\n"
    with captured() as log:
        for byte in line + b"print\n":
            place.process.protocol.outReceived(bytes([byte]))
        place.process.protocol.errReceived(b"Fatal error")
        place.process.protocol.errConnectionLost()
    assert [event.get("log_worker") for event in log.events] == [1, None, None]
    assert log.texts == ["hello", "worker 1: print", "worker 1: Fatal error"]


def test_lines_that_it_has_rendered(place: Place) -> None:
    """They are copied to the log as they are."""
    copied = list[bytes]()
    worker = WorkerProcess(place.reactor, copied.append)
    block = block_of(b"one\ntwo\n")
    worker.outReceived(block[:3])
    worker.outReceived(block[3:])
    assert copied == [b"one\ntwo\n"]
    place.worker.outReceived(block)  # nowhere to write them to: they are forgotten
