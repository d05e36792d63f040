"""Workers that are forked from a process that has loaded everything."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.support.capture import captured
from tests.support.worker_processes import COMMAND, FakeProcess, StartingReactor, greeting

from pyryrelay.handover.successor import Command
from pyryrelay.runtime.process import why_not_started
from pyryrelay.workers.starting import forking
from pyryrelay.workers.starting.fork_server import DESCRIPTORS
from pyryrelay.workers.starting.forking import AGAIN_S, CROWDED_S, ForkingStarter
from pyryrelay.workers.starting.server_process import LOAD_S


def open_descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


class FakeServer:
    """A process that workers are forked from, in memory."""

    def __init__(
        self, reactor: Any, received: Callable[[Any, Mapping[str, Any]], None], ended: Callable[[Any, str], None]
    ) -> None:
        self._reactor = reactor
        self._received = received
        self._ended = ended
        self.is_ready = False
        self.is_killed = False
        self.asked: list[int] = []
        self.has_room = True

        self.on_crowded: Callable[[], None] | None = None
        self.on_late: Callable[[], None] = lambda: None

    def end(self, outcome: str) -> None:
        """End."""
        self._ended(self, outcome)

    def start(self, command: Command) -> None:
        """Check the command."""
        assert command is COMMAND

    def fork(self, number: int, descriptors: list[int]) -> bool:
        """Record."""
        assert len(descriptors) == DESCRIPTORS
        if not self.has_room:
            return False
        # As a worker does, it keeps its end open.
        self._reactor.kept.append(socket.socket(fileno=os.dup(descriptors[0])))
        self.asked.append(number)
        return True

    def kill(self) -> None:
        """Record."""
        self.is_killed = True

    def say(self, kind: str, **fields: object) -> None:
        """Answer."""
        self.is_ready = True
        self._received(self, {"type": kind, **fields})


class Adopted(FakeProcess):
    """A worker in memory; its pipes are closed."""

    def __init__(self, reactor: Any, pid: int, protocol: Any, pipes: dict[int, int]) -> None:
        super().__init__(pid, protocol, [], {})
        for descriptor in pipes.values():
            os.close(descriptor)


class Place:
    """A starter of two workers, and what has become of them."""

    def __init__(self) -> None:
        self.reactor = StartingReactor()
        self.servers: list[FakeServer] = []
        self.adopted: list[Adopted] = []
        self.outcomes: list[str] = []
        self.open_before: int | None = None
        """Descriptors of this process before the first start: when the test runs, and so does the reactor."""
        self.starter = ForkingStarter(self.reactor, COMMAND, greeting)

    def start(self, count: int = 2) -> None:
        """Start workers."""
        if self.open_before is None:
            self.open_before = open_descriptors()
        self.workers = [self.starter(index, 1 + index, self.outcomes.append) for index in range(count)]

    def made(self, *arguments: Any) -> FakeServer:
        """Return another process."""
        self.servers.append(FakeServer(*arguments))
        return self.servers[-1]

    def adopt(self, *arguments: Any) -> Adopted:
        """Return a worker's process."""
        self.adopted.append(Adopted(*arguments))
        return self.adopted[-1]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A starter."""
    place = Place()
    monkeypatch.setattr(forking, "ForkServer", place.made)
    monkeypatch.setattr(forking, "AdoptedProcess", place.adopt)
    yield place
    place.starter.stop()
    place.reactor.advance(2 * LOAD_S)
    place.reactor.close()
    assert place.open_before in (None, open_descriptors())


def test_workers_wait_for_the_modules(place: Place) -> None:
    """They are forked when everything is loaded, and greeted when they are there."""
    place.start()
    (server,) = place.servers
    assert server.asked == []
    server.say("ready")
    assert server.asked == [1, 2]
    server.say("forked", number=2, pid=70)
    assert [worker.pid for worker in place.workers] == [0, 70]
    assert len(place.reactor.links) == 1
    place.adopted[0].end()
    place.reactor.advance(0)
    assert place.outcomes == ["signal 9"]
    place.start(1)
    assert server.asked == [1, 2, 3]


def test_a_worker_that_cannot_be_forked(place: Place) -> None:
    """It is reported as one that has ended."""
    place.start(1)
    place.servers[0].say("ready")
    place.servers[0].say("failed", number=1, problem="could not be started: no room")
    place.servers[0].say("forked", number=77, pid=1)
    place.reactor.advance(0)
    assert place.outcomes == ["could not be started: no room"]


def test_the_process_is_killed(place: Place) -> None:
    """Workers that wait for it are forked from the next one, which is started at once; nobody fails."""
    place.start()
    place.servers[0].say("ready")
    place.servers[0].say("forked", number=1, pid=70)
    with captured() as log:
        place.servers[0].end("signal 9")
    assert log.texts == ["the process that workers are forked from ended: signal 9; another one starts"]
    place.servers[1].say("ready")
    assert place.servers[1].asked == [3]
    place.servers[1].say("forked", number=3, pid=71)
    assert [worker.pid for worker in place.workers] == [70, 71]
    place.reactor.advance(0)
    assert place.outcomes == []


def hanging(place: Place) -> tuple[FakeServer, FakeServer]:
    """Have the process leave a request unanswered; return it and the one that was started beside it."""
    place.start()
    place.servers[0].say("ready")
    place.servers[0].say("forked", number=1, pid=70)
    place.servers[0].on_late()
    place.servers[0].on_late()
    assert len(place.servers) == 2
    return place.servers[0], place.servers[1]


def test_the_process_hangs(place: Place) -> None:
    """It is killed when the next one is ready, which forks the workers that wait; a late answer means nothing."""
    first, second = hanging(place)
    assert [server.is_killed for server in place.servers] == [False, False]
    place.start(1)
    assert first.asked == [1, 2, 3]
    with captured() as log:
        second.say("ready")
    assert log.texts == ["no answer from the process that workers are forked from; it was killed and replaced"]
    assert first.is_killed
    first.say("forked", number=2, pid=71)
    first.end("signal 9")
    assert second.asked == [4, 5]
    second.say("forked", number=4, pid=72)
    second.say("forked", number=5, pid=73)
    assert [process.pid for process in place.adopted] == [70, 72, 73]
    place.start(1)
    assert second.asked == [4, 5, 6]
    assert len(place.servers) == 2
    assert place.outcomes == []


def test_the_process_is_only_slow(place: Place) -> None:
    """Then it stays, and the other one, which is not ready yet, ends. It may be slow again."""
    first, second = hanging(place)
    first.say("forked", number=2, pid=71)
    assert [server.is_killed for server in place.servers] == [False, True]
    second.end("signal 9")
    assert [process.pid for process in place.adopted] == [70, 71]
    place.start(1)
    first.on_late()
    assert len(place.servers) == 3


def test_the_process_hangs_and_ends(place: Place) -> None:
    """Workers wait for the one that loads already."""
    first, second = hanging(place)
    with captured():
        first.end("signal 9")
    assert second.asked == []
    second.say("ready")
    assert second.asked == [3]
    assert len(place.servers) == 2


def test_the_process_hangs_and_the_next_one_fails(place: Place) -> None:
    """The first one has its time, and at its end another one is started, as always."""
    first, second = hanging(place)
    second.end("exit code 1")
    assert not first.is_killed
    with captured():
        first.end("signal 9")
    assert len(place.servers) == 3


def test_the_end_while_the_process_hangs(place: Place) -> None:
    """Both end."""
    first, second = hanging(place)
    place.starter.stop()
    assert first.is_killed
    assert second.is_killed
    first.on_late()
    assert len(place.servers) == 2


def test_the_process_ends_again_and_again(place: Place) -> None:
    """What cannot be loaded is no reason to start processes as fast as the machine can."""
    place.start()
    with captured():
        place.servers[0].end("exit code 1")
        place.reactor.advance(0)
        assert place.outcomes == 2 * ["the process that workers are forked from ended: exit code 1"]
        place.reactor.advance(AGAIN_S / 2)
        assert len(place.servers) == 1
        place.start(1)
        assert len(place.servers) == 2
        place.servers[1].end("exit code 1")
        place.reactor.advance(AGAIN_S)
        assert len(place.servers) == 2
        place.reactor.advance(AGAIN_S)
        assert len(place.servers) == 3
        place.servers[2].say("ready")
        place.servers[2].end("signal 9")
        place.servers[3].end("exit code 1")
        place.reactor.advance(AGAIN_S)
    assert len(place.servers) == 5


def test_the_end(place: Place) -> None:
    """The process ends, no other one is started, and nobody waits in vain."""
    place.start()
    place.starter.stop()
    assert place.servers[0].is_killed
    place.servers[0].end("signal 9")
    place.reactor.advance(LOAD_S)
    assert len(place.servers) == 1
    assert place.outcomes == 2 * ["not needed any more"]


def test_no_descriptors_are_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker cannot be connected; what was opened for it is closed."""

    def full() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", full)
    place.start(1)
    place.reactor.advance(0)
    assert place.outcomes == [why_not_started(OSError(24, "Too many open files"))]


def test_orphans_are_collected(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while a worker may be one of them that is not known yet."""
    calls: list[int] = []
    monkeypatch.setattr(forking, "collect_orphans", lambda: calls.append(1))
    place.start(1)
    place.starter.look_after()
    assert calls == []
    place.servers[0].say("ready")
    place.servers[0].say("forked", number=1, pid=70)
    place.starter.look_after()
    assert calls == [1]


def test_a_worker_waits_until_there_is_room(place: Place) -> None:
    """It is asked for again, as often as needed; one line says what to do."""
    place.start(1)
    (server,) = place.servers
    server.say("ready")
    server.say("forked", number=1, pid=70)
    server.has_room = False
    with captured() as log:
        place.start(1)
        place.reactor.pump([CROWDED_S] * 5)
    assert len(log.texts) == 1
    assert log.texts[0].startswith("worker 0 waits: too many connections are on their way to one that does not answer")
    assert (server.asked, server.is_killed, place.outcomes) == ([1], False, [])
    server.has_room = True
    place.reactor.pump([CROWDED_S] * 5)
    assert server.asked == [1, 2]
    server.say("forked", number=2, pid=71)
    assert place.workers[0].pid == 71


def test_the_starter_says_who_takes_them(place: Place) -> None:
    """Each process that workers are forked from is told."""
    place.starter.on_crowded = crowded = list[int]().clear
    place.start(1)
    assert place.servers[0].on_crowded == crowded
