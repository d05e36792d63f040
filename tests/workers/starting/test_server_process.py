"""One process that workers are forked from, from the outside."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support.capture import captured
from tests.support.worker_processes import COMMAND, FakeProcess, StartingReactor

from pyryrelay.handover.descriptors import receive_with_descriptors
from pyryrelay.runtime.process import why_not_started
from pyryrelay.workers.starting import server_process
from pyryrelay.workers.starting.fork_server import CONTROL, DESCRIPTORS, MODULE
from pyryrelay.workers.starting.server_process import FORK_S, LATE_S, LOAD_S, ForkServer


class Server:
    """One that was started in memory, what it has said, and how it has ended."""

    def __init__(self, reactor: StartingReactor) -> None:
        self.reactor = reactor
        self.said: list[Mapping[str, Any]] = []
        self.outcomes: list[str] = []
        self.lates: list[float] = []
        self.server = ForkServer(
            reactor, lambda server, said: self.said.append(said), lambda server, outcome: self.outcomes.append(outcome)
        )
        self.server.on_late = lambda: self.lates.append(reactor.seconds())
        self.server.start(COMMAND)

    @property
    def process(self) -> FakeProcess:
        """The process."""
        return self.reactor.started[0]

    def say(self, kind: str) -> None:
        """Say something."""
        self.reactor.links[0].stringReceived(json.dumps({"type": kind}).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    """A process that was started."""
    reactor = StartingReactor()
    made = Server(reactor)
    yield made
    made.server.kill()
    reactor.close()


def test_how_it_is_started(server: Server) -> None:
    """It gets the words of twistd, the folder and the environment of this process, and no signal that is for all."""
    others = server.process.others
    words = [str(os.getpid()), *COMMAND.words]
    assert server.process.arguments[0] == sys.executable
    assert server.process.arguments[-len(words) - 3 :] == ["-P", "-m", MODULE, *words]
    assert (others["env"], others["path"]) == ({"HOME": "/"}, "/srv")
    assert sorted(others["childFDs"]) == [0, 1, 2, CONTROL]
    blocked = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    assert server.process.blocked & blocked == blocked
    assert server.server.pid == 100


def test_a_request(server: Server) -> None:
    """It arrives with its descriptors."""
    server.say("ready")
    with socket.socket() as one:
        server.server.fork(4, 3 * [one.fileno()])
    body, descriptors = receive_with_descriptors(server.reactor.kept[0], 1000, lambda body: DESCRIPTORS)
    for descriptor in descriptors:
        os.close(descriptor)
    assert (json.loads(body), len(descriptors)) == ({"number": 4}, DESCRIPTORS)
    assert server.said == [{"type": "ready"}]
    server.say("forked")
    server.reactor.advance(LOAD_S + FORK_S)
    assert server.process.signals == []


@pytest.mark.parametrize("is_ready", [False, True])
def test_it_hangs(server: Server, is_ready: bool) -> None:
    """While it loads, or when it is asked for something, it is killed; at other times it has nothing to say."""
    if is_ready:
        server.say("ready")
        server.reactor.advance(10 * LOAD_S)
        with socket.socket() as one:
            server.server.fork(4, 3 * [one.fileno()])
        server.reactor.advance(LATE_S)
        assert len(server.lates) == 1
        assert server.process.signals == []
        server.reactor.advance(FORK_S - LATE_S)
    else:
        server.reactor.advance(LOAD_S)
    assert server.process.signals == ["KILL"]
    server.say("late")
    server.process.end()
    server.reactor.advance(0)
    assert server.outcomes == ["signal 9"]
    assert {"type": "late"} not in server.said


def test_its_connection_ends(server: Server) -> None:
    """Nobody can ask it any more."""
    server.reactor.links[0].connectionLost()
    assert server.process.signals == ["KILL"]
    server.server.fork(1, [])


def test_it_cannot_be_asked(server: Server) -> None:
    """It has closed its end."""
    server.say("ready")
    server.reactor.close()
    with socket.socket() as one:
        server.server.fork(1, 3 * [one.fileno()])
    assert server.process.signals == ["KILL"]


def test_it_cannot_be_started() -> None:
    """This is reported in a later turn."""
    reactor = StartingReactor()
    reactor.error = OSError(11, "no room")
    server = Server(reactor)
    assert server.server.pid == 0
    reactor.advance(0)
    assert server.outcomes == [why_not_started(OSError(11, "no room"))]


@pytest.mark.parametrize("is_started", [False, True])
def test_no_descriptor_is_left_for_it(is_started: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised; a process that cannot be talked to is killed, and reported when it has ended."""
    reactor = StartingReactor()
    reactor.is_full = True
    if not is_started:
        monkeypatch.setattr("pyryrelay.workers.starting.server_process.socket.socketpair", full)
    server = Server(reactor)
    for process in reactor.started:
        assert process.signals == ["KILL"]
        process.end()
    reactor.advance(0)
    assert len(reactor.started) == is_started
    assert server.outcomes == [why_not_started(OSError(24, "Too many open files"))]
    assert not reactor.getDelayedCalls()
    reactor.close()


def full() -> None:
    """Make no sockets."""
    raise OSError(24, "Too many open files")


def test_what_it_writes(server: Server) -> None:
    """A traceback of modules that cannot be loaded is logged."""
    with captured() as log:
        server.process.protocol.outReceived(b"one\n")
        server.process.protocol.errReceived(b"two")
        server.process.protocol.errConnectionLost()
    assert log.texts == ["process 100: one", "process 100: two"]


@pytest.mark.parametrize("times", [1, 2])
def test_too_many_descriptors_are_on_their_way(server: Server, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Some are taken from there, and the request is sent again; without success somebody has to ask later."""
    taken, sent = list[int](), list[int]()

    def send(*arguments: Any) -> None:
        sent.append(1)
        if len(sent) <= times:
            raise OSError(errno.ETOOMANYREFS, "crowded")

    server.server.on_crowded = lambda: taken.append(1)
    monkeypatch.setattr(server_process, "send_with_descriptors", send)
    server.say("ready")
    assert server.server.fork(1, [0, 1, 2]) == (times == 1)
    assert taken == [1]
    assert server.process.signals == []
