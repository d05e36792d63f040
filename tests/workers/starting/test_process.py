"""The process of a worker, as its supervisor sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.capture import captured
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pyryrelay.handover.successor import Command
from pyryrelay.listen.inherited import Inherited
from pyryrelay.workers.starting.greeting import VARIABLE, WorkerGreeting
from pyryrelay.workers.starting.process import END_S, SPARE_AFTER_S, WorkerProcess, WorkerStarter

KEPT: list[socket.socket] = []
"""The ends of processes in memory."""


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """Close them."""
    yield
    while KEPT:
        KEPT.pop().close()


COMMAND = Command(("-m", "pyryrelay", "run"), "/srv", {"HOME": "/"})


class Process:
    """A process in memory."""

    def __init__(self, pid: int, protocol: Any, others: dict[str, Any]) -> None:
        self.pid: int | None = pid
        self.protocol = protocol
        self.others = others
        self.signals: list[str] = []
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def signalProcess(self, name: str) -> None:  # noqa: N802
        if self.pid is None:
            raise ProcessExitedAlready
        self.signals.append(name)

    def end(self, number: int = signal.SIGKILL) -> None:
        """Let it end."""
        self.pid = None
        self.protocol.processExited(Failure(ProcessTerminated(None, number)))


class Reactor(Clock):
    """Starts processes in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Process] = []
        self.links: list[Any] = []
        self.kept = KEPT
        self.error: OSError | None = None

    def spawnProcess(self, protocol: Any, program: str, arguments: list[str], **others: Any) -> Process:  # noqa: N802
        if self.error is not None:
            raise self.error
        assert [program, *arguments[1:]] == [sys.executable, *COMMAND.arguments]
        # As a child does, it keeps its end open.
        self.kept.append(socket.socket(fileno=os.dup(max(others["childFDs"]))))
        self.started.append(Process(100 + len(self.started), protocol, others))
        return self.started[-1]

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:  # noqa: N802
        link = factory.buildProtocol(None)
        link.makeConnection(StringTransport())
        self.links.append(link)
        KEPT.append(socket.socket(fileno=os.dup(descriptor)))


class Place:
    """A worker that was started, and what has become of it."""

    def __init__(self, reactor: Reactor | None = None) -> None:
        self.reactor = reactor or Reactor()
        self.outcomes: list[str] = []
        self.worker = WorkerProcess(self.reactor, COMMAND)
        self.worker.spawn()
        self.worker.greet(greeting(1, 5), self.outcomes.append)

    @property
    def process(self) -> Process:
        return self.reactor.started[0]


def greeting(index: int, boot: int) -> WorkerGreeting:
    return WorkerGreeting(index, 2, boot, Inherited())


def test_how_it_is_started() -> None:
    """It gets the command, the folder and the environment of this process, two pipes, and one end of the connection."""
    place = Place()
    others = place.process.others
    pid, descriptor = others["env"].pop(VARIABLE).split(":")
    assert int(pid) == os.getpid()
    assert (others["env"], others["path"]) == ({"HOME": "/"}, "/srv")
    assert {key: value for key, value in others["childFDs"].items() if key} == {
        1: "r",
        2: "r",
        int(descriptor): int(descriptor),
    }
    assert place.worker.pid == 100


def test_signals_that_the_supervisor_decides_on() -> None:
    """A terminal and a service manager send them to everybody; they are blocked in workers, and here as before."""
    place = Place()
    blocked = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    assert place.process.blocked & {*blocked, signal.SIGTERM} == blocked
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & blocked


def test_the_end_is_reported_once() -> None:
    """However the end of the process and of the connection follow each other; the number stays known."""
    place = Place()
    place.process.end()
    place.reactor.links[0].connectionLost()
    assert place.outcomes == []
    place.reactor.advance(0)
    place.reactor.advance(END_S)
    assert place.outcomes == ["signal 9"]
    assert place.worker.rpc.is_lost
    assert place.worker.pid == 100


def test_a_process_without_connection_is_killed() -> None:
    """Nobody can tell it anything any more."""
    place = Place()
    place.reactor.links[0].connectionLost()
    place.reactor.advance(END_S)
    assert place.process.signals == ["KILL"]
    place.process.end()
    place.reactor.advance(0)
    assert place.outcomes == ["signal 9"]


def test_a_process_that_cannot_be_started() -> None:
    """It is reported in a later turn, like one that has ended."""
    reactor = Reactor()
    reactor.error = OSError(11, "Resource temporarily unavailable")
    place = Place(reactor)
    assert place.outcomes == []
    reactor.advance(0)
    assert place.outcomes == ["could not be started: Resource temporarily unavailable"]
    place.worker.kill()


def test_what_it_logs() -> None:
    """Events are written with its index, in whatever pieces they arrive, and other lines as they are."""
    place = Place()
    line = json.dumps([1.0, "info", "pyryrelay", "{warning}", {"warning": "hello"}, ""]).encode() + b"\n"
    with captured() as log:
        for byte in line + b"print\n":
            place.process.protocol.outReceived(bytes([byte]))
        place.process.protocol.errReceived(b"Fatal error")
        place.process.protocol.errConnectionLost()
    assert [event.get("log_worker") for event in log.events] == [1, None, None]
    assert log.texts == ["hello", "worker 1: print", "worker 1: Fatal error"]


def test_one_in_advance() -> None:
    """Some seconds after a worker another process is started, which is the next worker at once."""
    reactor, outcomes = Reactor(), list[str]()
    starter = WorkerStarter(reactor, COMMAND, greeting)
    starter(0, 1, outcomes.append)
    starter(1, 2, outcomes.append)
    assert len(reactor.started) == 2
    reactor.advance(SPARE_AFTER_S)
    assert (len(reactor.started), len(reactor.links)) == (3, 2)
    starter(0, 3, outcomes.append)
    assert (len(reactor.started), len(reactor.links)) == (3, 3)
    reactor.advance(SPARE_AFTER_S)
    assert len(reactor.started) == 4
    starter.stop()


def test_one_in_advance_that_has_ended() -> None:
    """It is no use, and another one is started."""
    reactor = Reactor()
    starter = WorkerStarter(reactor, COMMAND, greeting)
    starter(0, 1, lambda outcome: None)
    reactor.advance(SPARE_AFTER_S)
    reactor.started[1].end()
    starter(0, 2, lambda outcome: None)
    assert len(reactor.started) == 3
    starter.stop()


@pytest.mark.parametrize("is_early", [False, True])
def test_no_more_in_advance(is_early: bool) -> None:
    """At the end the process that waits ends, and none is started."""
    reactor = Reactor()
    starter = WorkerStarter(reactor, COMMAND, greeting)
    starter(0, 1, lambda outcome: None)
    if not is_early:
        reactor.advance(SPARE_AFTER_S)
    starter.stop()
    reactor.advance(10 * SPARE_AFTER_S)
    assert [process.signals for process in reactor.started] == ([[]] if is_early else [[], ["KILL"]])
