"""A process is started to succeed this one, and what it says or how it ends is reported once."""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pyryrelay.handover.link import Greeting
from pyryrelay.handover.predecessor import VARIABLE
from pyryrelay.handover.successor import START_TIMEOUT_S, Command, Successor
from pyryrelay.listen.inherited import Inherited
from pyryrelay.runtime.process import why_not_started


class Reactor(Clock):
    """Starts processes in memory."""

    def __init__(self, *, is_full: bool = False) -> None:
        super().__init__()
        self.started: list[dict[str, Any]] = []
        self.killed: list[str] = []
        self.transport = StringTransport()
        self.pid = 8
        self.link: Any = None
        self.is_full = is_full

    def spawnProcess(self, protocol: Any, program: str, arguments: list[str], **others: Any) -> Reactor:  # noqa: N802
        self.started.append({"program": program, "arguments": arguments, **others})
        return self

    def signalProcess(self, name: str) -> None:  # noqa: N802
        self.killed.append(name)

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:  # noqa: N802
        if self.is_full:
            raise OSError(24, "Too many open files")
        self.link = factory.buildProtocol(None)
        self.link.makeConnection(self.transport)


class Place:
    """A successor that was started, and what it has reported."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.reactor = Reactor(is_full=is_full)
        self.events: list[object] = []
        self.answer: bytes | Deferred[bytes] | None = b"yes"
        command = Command(("-m", "pyryrelay", "run"), "/srv", {"HOME": "/"})
        self.successor = Successor(self.reactor, command, Greeting("1", 7, (), Inherited()), self)
        self.successor.start()

    def say(self, kind: str, **fields: object) -> None:
        """Let it send a message."""
        body = json.dumps({"type": kind, **fields}).encode()
        self.reactor.link.dataReceived(struct.pack("!I", len(body)) + body)

    def end(self, code: int = 1, number: int | None = None) -> None:
        """Let the process end."""
        error = ProcessTerminated(code, number) if code or number else ProcessDone(0)
        self.successor.processEnded(Failure(error))

    # pyryrelay.handover.successor.SuccessorEvents

    def failed(self, why: str) -> None:
        self.events.append(("failed", why))

    def ready(self, kept: frozenset[str]) -> None:
        self.events.append(("ready", set(kept)))

    def serving(self) -> None:
        self.events.append("serving")

    def lost(self) -> None:
        self.events.append("lost")

    def ending(self) -> None:
        self.events.append("ending")

    def asked(self, protocol: str, question: bytes) -> bytes | Deferred[bytes] | None:
        self.events.append((protocol, question))
        return self.answer


@pytest.fixture
def place() -> Place:
    """Return a successor that starts."""
    return Place()


def test_how_it_is_started(place: Place) -> None:
    """It gets this process's command, folder and environment, and one more descriptor, which the variable names."""
    (started,) = place.reactor.started
    assert started["arguments"] == [sys.executable, "-m", "pyryrelay", "run"]
    assert (started["path"], started["env"]["HOME"]) == ("/srv", "/")
    pid, _, descriptor = started["env"][VARIABLE].partition(":")
    assert int(pid) == os.getpid()
    assert started["childFDs"] == {number: number for number in (0, 1, 2, int(descriptor))}


def test_the_command_of_this_process() -> None:
    """The command is what the interpreter was given."""
    command = Command.of_this_process()
    assert list(command.arguments) == sys.orig_argv[1:]
    assert command.directory == os.getcwd()


def test_an_orderly_life(place: Place) -> None:
    """It reports ready, serving and ending, and its end then means nothing."""
    place.say("ready", version="2", kept=["a"])
    place.say("serving")
    assert (place.successor.version, place.successor.pid) == ("2", 8)
    place.say("ending")
    place.reactor.link.connectionLost()
    place.end(0)
    assert place.events == [("ready", {"a"}), "serving", "ending"]
    place.reactor.advance(START_TIMEOUT_S)
    assert not place.reactor.killed


@pytest.mark.parametrize(
    ("code", "number", "outcome"), [(1, None, "exit code 1"), (0, None, "exit code 0"), (None, 9, "signal 9")]
)
def test_an_end_before_it_is_ready(place: Place, code: Any, number: int | None, outcome: str) -> None:
    """It has failed, for the reason that it gave, or with how it ended."""
    place.reactor.link.connectionLost()
    assert place.reactor.killed == ["KILL"]
    place.end(code, number)
    assert place.events == [("failed", f"it ended ({outcome}) before it was ready; its log says more")]


def test_the_reason_that_it_gives(place: Place) -> None:
    """Its own line is the reason."""
    place.say("failed", line="--grace is wrong")
    place.end(2)
    assert place.events == [("failed", "--grace is wrong")]


def test_one_that_takes_too_long(place: Place) -> None:
    """It is killed, and the reason says so."""
    place.reactor.advance(START_TIMEOUT_S)
    assert place.reactor.killed == ["KILL"]
    place.end(None, 9)  # type: ignore[arg-type]
    assert place.events == [("failed", "it was not ready within 60 s")]


def test_one_that_dies_later(place: Place) -> None:
    """After it was ready, the end of the link is its death."""
    place.say("ready", version="2", kept=[])
    place.reactor.link.connectionLost()
    place.end(None, 9)  # type: ignore[arg-type]
    assert place.events == [("ready", set()), "lost"]


def test_questions(place: Place) -> None:
    """Each question is answered, also later, and with null for a protocol that is not spoken."""
    later = place.answer = Deferred()
    place.say("ask", number=1, protocol="pyry", question="a")
    place.answer = None
    place.say("ask", number=2, protocol="other", question="b")
    later.callback(b"late")
    wire = place.reactor.transport.value()
    assert b'{"type":"answer","number":2,"answer":null}' in wire
    assert b'{"type":"answer","number":1,"answer":"late"}' in wire


@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_a_process_that_ends_itself(place: Place, how: str) -> None:
    """A successor that has not taken over is told to end; nothing is reported any more."""
    getattr(place.successor, how)()
    place.reactor.link.connectionLost()
    place.end()
    assert place.events == []
    assert (b'"cancel"' in place.reactor.transport.value()) == (how == "cancel")


def test_what_it_is_told(place: Place) -> None:
    """It is told to take over, and what was released."""
    place.successor.take(jail=[], reload=False)
    place.successor.released("nostr")
    wire = place.reactor.transport.value()
    assert b'{"type":"take","jail":[],"reload":false}' in wire
    assert b'{"type":"released","protocol":"nostr"}' in wire


def test_no_descriptor_is_left_for_the_link() -> None:
    """The process is killed: it would take this one for gone, and become a relay beside it."""
    place = Place(is_full=True)
    assert place.events == [("failed", why_not_started(OSError(24, "Too many open files")))]
    assert place.reactor.killed == ["KILL"]
    place.end(0, 9)
    assert len(place.events) == 1


def test_no_descriptor_is_left_for_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started."""

    def full() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pyryrelay.handover.successor.socket.socketpair", full)
    place = Place()
    assert place.events == [("failed", why_not_started(OSError(24, "Too many open files")))]
    assert place.reactor.started == []
