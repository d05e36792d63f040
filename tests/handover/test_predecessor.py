"""What a process learns from the one that it succeeds, in which order, and what it does if that one dies."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from pyryrelay.handover.link import Greeting, GreetingError, send_greeting
from pyryrelay.handover.predecessor import VARIABLE, Predecessor
from pyryrelay.listen.inherited import Inherited


class Reactor:
    """Gives what adopts a descriptor a transport in memory."""

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.protocol: Any = None

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:  # noqa: N802
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def say(self, kind: str, **fields: object) -> None:
        """Let the predecessor send a message."""
        body = json.dumps({"type": kind, **fields}).encode()
        self.protocol.dataReceived(struct.pack("!I", len(body)) + body)

    def heard(self) -> list[Mapping[str, Any]]:
        """Return what it was sent."""
        data, found = self.transport.value(), []
        self.transport.clear()
        while data:
            (length,) = struct.unpack_from("!I", data)
            found.append(json.loads(data[4 : 4 + length]))
            data = data[4 + length :]
        return found


class Place:
    """A predecessor that has greeted."""

    def __init__(self, *endpoints: str) -> None:
        self.ours, end = socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            sockets = Inherited(dict.fromkeys(endpoints, listening))
            send_greeting(self.ours, Greeting("26.11.0", 7, (), sockets))
        environ = {VARIABLE: f"7:{end.detach()}", "HOME": "/"}
        found = Predecessor.find(environ, 7)
        assert found is not None
        assert environ == {"HOME": "/"}
        self.predecessor = found
        self.reactor = Reactor()
        self.events: list[object] = []

    def connect(self) -> None:
        self.predecessor.connect(self.reactor, self.events.append, lambda: self.events.append("cancelled"))


@pytest.fixture
def place() -> Iterator[Place]:
    """Return a predecessor that has two sockets."""
    place = Place("a", "b")
    yield place
    place.connect()  # which closes the end of the pair, unless the test has
    place.predecessor.sockets.close()
    place.ours.close()


@pytest.mark.parametrize("value", ["", "7", "x:3", "8:3", "7:"])
def test_no_predecessor(value: str) -> None:
    """Without the variable, or with that of another process, there is none."""
    environ = {VARIABLE: value} if value else {}
    assert Predecessor.find(environ, 7) is None
    assert environ == {}


@pytest.mark.parametrize("is_told", [True, False])
def test_a_predecessor_that_has_ended_already(is_told: bool) -> None:
    """A process that comes too late does what it was told, or takes over, and is no relay of its own."""
    ours, end = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        send_greeting(ours, Greeting("26.11.0", os.getpid(), (), Inherited({"a": listening})))
    if is_told:
        body = b'{"type": "cancel"}'
        ours.sendall(struct.pack("!I", len(body)) + body)
    ours.close()
    found = Predecessor.find({VARIABLE: f"{os.getpid()}:{end.detach()}"}, 1)
    assert found is not None
    assert found.sockets.endpoints == {"a"}
    assert found._end is not None
    told = found._end.recv(1000)
    assert (b"cancel" in told) == is_told
    found.sockets.close()
    found._end.close()


def test_a_descriptor_of_something_else() -> None:
    """The variable of a process that is not the parent, with a descriptor of another socket: both are left alone."""
    one, other = socket.socketpair()
    with one, other, socket.socket() as tcp:
        for descriptor in (one.fileno(), tcp.fileno()):
            assert Predecessor.find({VARIABLE: f"{os.getpid() + 1}:{descriptor}"}, 1) is None
        one.sendall(b"still open")
        assert other.recv(100) == b"still open"


def test_a_variable_that_names_no_socket() -> None:
    """A descriptor that is closed is no predecessor."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    assert Predecessor.find({VARIABLE: f"7:{read_end}"}, 7) is None


def test_a_predecessor_that_is_not_understood() -> None:
    """It is told why, and this process does not start."""
    ours, end = socket.socketpair()
    with ours:
        ours.sendall(struct.pack("!I", 2) + b"{}")
        with pytest.raises(GreetingError):
            Predecessor.find({VARIABLE: f"7:{end.detach()}"}, 7)
        assert b"is not understood" in ours.recv(1000)


def test_the_order(place: Place) -> None:
    """It is told what is kept, and takes over once, with what it was given."""
    place.connect()
    kept = place.predecessor.sockets.take("b")
    assert kept is not None
    place.predecessor.ready()
    (ready,) = place.reactor.heard()
    assert (ready["type"], ready["pid"], ready["kept"]) == ("ready", os.getpid(), ["b"])
    place.reactor.say("take", jail=[1])
    place.reactor.say("take", jail=[2])
    assert place.events == [{"type": "take", "jail": [1]}]
    place.predecessor.serving()
    place.predecessor.ending()
    assert [message["type"] for message in place.reactor.heard()] == ["serving", "ending"]
    kept.close()


def test_questions_and_releases(place: Place) -> None:
    """Answers find their questions, and each protocol is released on its own."""
    place.connect()
    pyry, nostr = place.predecessor.of("pyry"), place.predecessor.of("nostr")
    answers: list[object] = []
    for number in (1, 2):
        pyry.ask(f"question {number}".encode()).addCallback(answers.append)
    nostr.when_released().addCallback(lambda _: answers.append("nostr"))
    asked = place.reactor.heard()
    assert [(one["protocol"], one["question"]) for one in asked] == [("pyry", "question 1"), ("pyry", "question 2")]
    place.reactor.say("answer", number=asked[1]["number"], answer="b")
    place.reactor.say("answer", number=asked[0]["number"], answer=None)
    place.reactor.say("answer", number=99, answer="x")
    place.reactor.say("released", protocol="nostr")
    place.reactor.say("of a later version", more=1)
    assert answers == [b"b", None, "nostr"]
    assert nostr.when_released().called
    assert not pyry.when_released().called


def test_a_death_before_the_take_over(place: Place) -> None:
    """If the predecessor dies, this process takes over, because nobody else has the sockets."""
    place.connect()
    place.predecessor.ready()
    place.reactor.protocol.connectionLost()
    assert place.events == [{}]
    assert place.predecessor.is_gone


def test_a_death_after_it(place: Place) -> None:
    """What was asked is answered with None, what was waited for is released, and later questions, too."""
    place.connect()
    place.reactor.say("take")
    protocol = place.predecessor.of("pyry")
    answers: list[object] = []
    protocol.ask(b"a").addCallback(answers.append)
    protocol.when_released().addCallback(answers.append)
    place.reactor.protocol.connectionLost()
    protocol.ask(b"b").addCallback(answers.append)
    protocol.when_released().addCallback(answers.append)
    assert answers == [None] * 4
    assert len(place.events) == 1


def test_cancelled(place: Place) -> None:
    """A predecessor that is told to end tells so, and then its end means nothing."""
    place.connect()
    place.reactor.say("cancel")
    place.reactor.protocol.connectionLost()
    assert place.events == ["cancelled"]


def test_a_failure_is_told_without_a_reactor(place: Place) -> None:
    """Before the reactor runs, one line can be told."""
    place.predecessor.failed("--grace 'x' is no number")
    assert b"--grace 'x' is no number" in place.ours.recv(1000)
