"""A worker's connection to a shared child looks like a child of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pyryrelay.runtime.child_process import CLOSE_S
from pyryrelay.workers.shared_child import LOST, connect


class Transport(StringTransport):
    """A socket whose two directions end separately."""

    is_half_closed = False
    is_aborted = False

    def loseWriteConnection(self) -> None:  # noqa: N802
        self.is_half_closed = True

    def abortConnection(self) -> None:
        self.is_aborted = True


class Reactor(Clock):
    """A reactor that adopts connections onto a transport in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.transport: Any = Transport()  # type: ignore[no-untyped-call]
        self.protocol: Any = None
        self.is_full = False

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Factory) -> None:  # noqa: N802
        if self.is_full:
            raise OSError(24, "Too many open files")
        assert family == socket.AF_UNIX
        assert not os.get_blocking(descriptor)
        self.protocol = factory.buildProtocol(UNIXAddress(None))
        self.protocol.makeConnection(self.transport)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The name of a socket that somebody listens on."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        yield str(tmp_path / "s")


class Told:
    """What is reported of a connection."""

    def __init__(self, reactor: Reactor, address: str) -> None:
        self.received: list[bytes] = []
        self.ended: list[str] = []
        self.child = connect(reactor, address, self.received.append, self.ended.append)


def test_no_descriptor_is_left(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the socket nor for the reactor's copy: this is reported like any other failure."""
    reactor = Reactor()
    reactor.is_full = True
    told = Told(reactor, address)

    def full(*arguments: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pyryrelay.workers.shared_child.socket.socket", full)
    late = Told(reactor, address)
    assert told.ended == late.ended == []
    reactor.advance(0)
    assert told.ended == late.ended == ["no connection to s: Too many open files"]


def test_frames_go_both_ways(address: str) -> None:
    """With their length before them, in pieces or together."""
    reactor = Reactor()
    told = Told(reactor, address)
    assert told.child.pid is None
    told.child.send(b"abc")
    assert reactor.transport.value() == b"\0\0\0\3abc"
    reactor.protocol.dataReceived(b"\0\0\0\1x\0\0\0\2y")
    reactor.protocol.dataReceived(b"z")
    assert told.received == [b"x", b"yz"]


def test_the_end_is_told_once(address: str) -> None:
    """Nothing can be sent any more."""
    reactor = Reactor()
    told = Told(reactor, address)
    reactor.protocol.connectionLost(Failure(ConnectionDone()))
    told.child.send(b"late")
    told.child.close()
    told.child.kill()
    assert told.ended == [LOST]
    assert not reactor.transport.value()


def test_closing_waits_for_answers_but_not_for_ever(address: str) -> None:
    """The child reads what was sent before, and ends the connection; one that hangs is left after a time."""
    reactor = Reactor()
    told = Told(reactor, address)
    told.child.send(b"last")
    told.child.close()
    told.child.close()
    told.child.send(b"late")
    assert reactor.transport.is_half_closed
    assert reactor.transport.value() == b"\0\0\0\4last"
    reactor.protocol.dataReceived(b"\0\0\0\6answer")
    assert told.received == [b"answer"]
    reactor.advance(CLOSE_S)
    assert reactor.transport.is_aborted
    other = Reactor()
    closed = Told(other, address)
    closed.child.close()
    other.protocol.connectionLost(Failure(ConnectionDone()))
    other.advance(CLOSE_S)
    assert not other.transport.is_aborted
    assert closed.ended == [LOST]


def test_no_connection_is_an_end(tmp_path: Path) -> None:
    """It is told in a later turn, with the reason."""
    reactor = Reactor()
    told = Told(reactor, str(tmp_path / "nostr-writer"))
    told.child.send(b"x")
    told.child.close()
    assert told.ended == []
    reactor.advance(0)
    assert told.ended == ["no connection to nostr-writer: No such file or directory"]
