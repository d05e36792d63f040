"""Workers on systems where they cannot be forked."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from tests.support.worker_processes import COMMAND, FakeProcess, StartingReactor, greeting

from pyryrelay.runtime.process import why_not_started
from pyryrelay.workers.starting.greeting import VARIABLE
from pyryrelay.workers.starting.process import WorkerProcess
from pyryrelay.workers.starting.spawning import SPARE_AFTER_S, SpawningStarter, spawn


@pytest.fixture
def reactor() -> Iterator[StartingReactor]:
    """Starts processes in memory."""
    made = StartingReactor()
    yield made
    made.close()


def spawned(reactor: StartingReactor) -> FakeProcess:
    """Return the process of a worker that was started."""
    spawn(reactor, COMMAND, WorkerProcess(reactor))
    return reactor.started[0]


def test_how_it_is_started(reactor: StartingReactor) -> None:
    """It gets the command, the folder and the environment of this process, two pipes, and one end of the connection."""
    process = spawned(reactor)
    others = process.others
    assert process.arguments == [sys.executable, *COMMAND.arguments]
    pid, descriptor = others["env"].pop(VARIABLE).split(":")
    assert int(pid) == os.getpid()
    assert (others["env"], others["path"]) == ({"HOME": "/"}, "/srv")
    assert {key: value for key, value in others["childFDs"].items() if key} == {
        1: "r",
        2: "r",
        int(descriptor): int(descriptor),
    }


def test_signals_that_the_supervisor_decides_on(reactor: StartingReactor) -> None:
    """A terminal and a service manager send them to everybody; they are blocked in workers, and here as before."""
    process = spawned(reactor)
    blocked = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    assert process.blocked & {*blocked, signal.SIGTERM} == blocked
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & blocked


def test_one_that_cannot_be_started(reactor: StartingReactor) -> None:
    """It is reported as a worker that has ended."""
    reactor.error = OSError(11, "Resource temporarily unavailable")
    outcomes: list[str] = []
    starter = SpawningStarter(reactor, COMMAND, greeting)
    starter(0, 1, outcomes.append)
    starter.stop()
    reactor.advance(0)
    assert outcomes == [why_not_started(OSError(11, "Resource temporarily unavailable"))]


def test_one_in_advance(reactor: StartingReactor) -> None:
    """Some seconds after a worker another process is started, which is the next worker at once."""
    outcomes = list[str]()
    starter = SpawningStarter(reactor, COMMAND, greeting)
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


def test_one_in_advance_that_has_ended(reactor: StartingReactor) -> None:
    """It is no use, and another one is started."""
    starter = SpawningStarter(reactor, COMMAND, greeting)
    starter(0, 1, lambda outcome: None)
    reactor.advance(SPARE_AFTER_S)
    reactor.started[1].end()
    starter(0, 2, lambda outcome: None)
    assert len(reactor.started) == 3
    starter.stop()


@pytest.mark.parametrize("is_early", [False, True])
def test_no_more_in_advance(reactor: StartingReactor, is_early: bool) -> None:
    """At the end the process that waits ends, and none is started."""
    starter = SpawningStarter(reactor, COMMAND, greeting)
    starter(0, 1, lambda outcome: None)
    if not is_early:
        reactor.advance(SPARE_AFTER_S)
    starter.stop()
    reactor.advance(10 * SPARE_AFTER_S)
    assert [process.signals for process in reactor.started] == ([[]] if is_early else [[], ["KILL"]])


def test_no_descriptor_is_left(reactor: StartingReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as a worker that has ended, and nothing is started."""

    def full() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pyryrelay.workers.starting.spawning.socket.socketpair", full)
    outcomes: list[str] = []
    starter = SpawningStarter(reactor, COMMAND, greeting)
    starter(0, 1, outcomes.append)
    starter.stop()
    reactor.advance(0)
    assert set(outcomes) == {why_not_started(OSError(24, "Too many open files"))}
    assert reactor.started == []
