"""Child processes: frames in both directions, one end for process and socket together, and bounded log lines."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.capture import Captured
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pyryrelay.runtime.child_process import (
    CLOSE_S,
    EXIT_S,
    LINES_PERIOD_S,
    MAX_FRAME_BYTES,
    MAX_LINE_BYTES,
    MAX_LINES,
    FrameReader,
    start_child,
)
from pyryrelay.runtime.process import why_not_started


class Transport(StringTransport):
    """A socket whose two directions end separately."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_half_closed = False
        self.is_aborted = False

    def sent(self) -> bytes:
        """Return what was written."""
        return bytes(self.value())  # type: ignore[no-untyped-call]

    def loseWriteConnection(self) -> None:  # noqa: N802
        self.is_half_closed = True

    def abortConnection(self) -> None:
        self.is_aborted = True


class Reactor(Clock):
    """A reactor that starts no process, and records what it was asked to start."""

    pid = 4711

    def __init__(self, error: OSError | None = None) -> None:
        super().__init__()
        self.error = error
        self.transport = Transport()
        self.signals: list[str] = []
        self.triggers: list[Callable[[], None]] = []
        self.is_full = False

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], None]) -> Callable[[], None]:  # noqa: N802
        assert (phase, event) == ("after", "shutdown")
        self.triggers.append(call)
        return call

    def removeSystemEventTrigger(self, call: Callable[[], None]) -> None:  # noqa: N802
        self.triggers.remove(call)

    def spawnProcess(self, protocol: Any, executable: str, command: list[str], **others: Any) -> Reactor:  # noqa: N802
        if self.error is not None:
            raise self.error
        self.process, self.executable, self.command, self.others = protocol, executable, command, others
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.is_given_a_socket = os.fstat(others["childFDs"][0]).st_mode & 0o170000 == 0o140000
        return self

    def signalProcess(self, name: str) -> None:  # noqa: N802
        self.signals.append(name)

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Factory) -> None:  # noqa: N802
        if self.is_full:
            raise OSError(24, "Too many open files")
        assert family == socket.AF_UNIX
        assert not os.get_blocking(descriptor)
        self.socket: Any
        self.socket = factory.buildProtocol(UNIXAddress(None))
        self.socket.makeConnection(self.transport)

    def exit(self, error: Exception) -> None:
        """Let the process end."""
        self.process.processExited(Failure(error))

    def disconnect(self) -> None:
        """Let the socket end."""
        self.socket.connectionLost(Failure(ConnectionDone()))


class Started:
    """A child, and what is reported of it."""

    def __init__(self, reactor: Reactor) -> None:
        self.received: list[bytes] = []
        self.ended: list[str] = []
        self.child = start_child(reactor, ["-m", "module"], self.received.append, self.ended.append)


@pytest.fixture
def reactor() -> Reactor:
    """The reactor of a relay."""
    return Reactor()


@pytest.fixture
def started(reactor: Reactor) -> Started:
    """A running child."""
    return Started(reactor)


def frame(body: bytes) -> bytes:
    """Return a frame."""
    return len(body).to_bytes(4, "big") + body


# Frames


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 100)))
def test_frames_do_not_depend_on_chunks(bodies: list[bytes], cuts: list[int]) -> None:
    """However the bytes of frames are divided, the same bodies are found."""
    data = b"".join(map(frame, bodies))
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = FrameReader()
    found = [body for a, b in pairwise(ends) for body in reader.feed(data[a:b])]
    assert found == bodies


def test_a_frame_has_a_maximum() -> None:
    """A length that no child announces in good order is an error before anything is kept."""
    with pytest.raises(ValueError, match="268435457"):
        FrameReader().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_frames_in_both_directions(reactor: Reactor, started: Started) -> None:
    """What is sent is framed, and all frames of one chunk are received at once."""
    started.child.send(b"one")
    started.child.send(b"")
    assert reactor.transport.sent() == frame(b"one") + frame(b"")
    reactor.socket.dataReceived(frame(b"two") + frame(b"three") + b"\0\0")
    assert started.received == [b"two", b"three"]


# Start


def test_how_it_is_started(reactor: Reactor, started: Started) -> None:
    """A child is this Python, with the environment of the relay, and with a socket as its only descriptor for data."""
    assert reactor.executable == sys.executable
    assert reactor.command == [sys.executable, "-P", "-m", "module"]
    assert reactor.others["env"] is None
    assert list(reactor.others["childFDs"]) == [0, 1, 2]
    assert reactor.is_given_a_socket
    assert started.child.pid == Reactor.pid


def test_signals_are_blocked_in_children_only(reactor: Reactor, started: Started) -> None:
    """A child inherits a mask that blocks the signals of a terminal and of systemd; the relay has its own again."""
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= reactor.blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_no_descriptor_is_left(reactor: Reactor) -> None:
    """The relay keeps neither the child's end of the socket nor a second copy of its own."""
    before = os.listdir("/dev/fd")
    Started(reactor)
    Started(Reactor(OSError(11, "Resource temporarily unavailable")))
    assert os.listdir("/dev/fd") == before


def test_a_process_that_cannot_be_started(reactor: Reactor) -> None:
    """The failure is reported like an end, in a later turn; sending and closing do nothing."""
    reactor.error = OSError(11, "Resource temporarily unavailable")
    started = Started(reactor)
    started.child.send(b"one")
    started.child.close()
    assert (started.child.pid, started.ended) == (None, [])
    reactor.advance(0)
    assert started.ended == [
        "could not be started: Resource temporarily unavailable "
        "(raise the limit of processes: ulimit -u, LimitNPROC=, TasksMax=)"
    ]
    assert not reactor.getDelayedCalls()


def test_a_process_that_cannot_be_talked_to(reactor: Reactor) -> None:
    """Without a descriptor for the connection it is killed, and its end says why."""
    reactor.is_full = True
    started = Started(reactor)
    started.child.send(b"one")
    assert reactor.signals == ["KILL"]
    assert started.ended == []
    reactor.exit(ProcessTerminated(None, 9))
    assert started.ended == [why_not_started(OSError(24, "Too many open files"))]
    assert not reactor.getDelayedCalls()


def test_a_socket_that_cannot_be_made(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor there is no child."""

    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pyryrelay.runtime.child_process.socket.socketpair", fail)
    started = Started(reactor)
    reactor.advance(0)
    assert started.ended == [
        "could not be started: Too many open files (raise the limit of open files: ulimit -n, LimitNOFILE=)"
    ]


# End


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ProcessDone(0), "exit code 0"),
        (ProcessTerminated(exitCode=3), "exit code 3"),
        (ProcessTerminated(signal=9), "signal 9"),
    ],
)
@pytest.mark.parametrize("is_socket_first", [True, False])
def test_the_end_is_reported_once(
    reactor: Reactor, started: Started, error: Exception, outcome: str, is_socket_first: bool
) -> None:
    """A child has ended when both its process and its socket have, in either order; it sends nothing afterwards."""
    steps: list[Callable[[], None]] = [reactor.disconnect, lambda: reactor.exit(error)]
    first, second = steps
    if not is_socket_first:
        first, second = second, first
    first()
    assert started.ended == []
    second()
    assert started.ended == [outcome]
    started.child.send(b"one")
    started.child.close()
    assert not reactor.getDelayedCalls()
    assert reactor.signals == []


def test_the_last_frames_come_before_the_end(reactor: Reactor, started: Started) -> None:
    """What a process sent before it ended is received although its end is noticed first."""
    reactor.exit(ProcessDone(0))
    reactor.socket.dataReceived(frame(b"last"))
    reactor.disconnect()
    assert (started.received, started.ended) == ([b"last"], ["exit code 0"])


def test_a_closed_child_finishes_its_work(reactor: Reactor, started: Started) -> None:
    """Closing ends the direction to the child alone, so that it can still answer what it was sent."""
    started.child.send(b"one")
    started.child.close()
    started.child.close()
    started.child.send(b"two")
    assert reactor.transport.is_half_closed
    assert reactor.transport.sent() == frame(b"one")
    reactor.socket.dataReceived(frame(b"done"))
    assert started.received == [b"done"]


def test_a_child_that_does_not_end_is_killed(reactor: Reactor, started: Started) -> None:
    """A closed child has a bounded time for its work, and one without a socket a shorter one."""
    started.child.close()
    reactor.advance(CLOSE_S)
    assert reactor.signals == ["KILL"]
    reactor.disconnect()
    reactor.advance(EXIT_S)
    assert reactor.signals == ["KILL", "KILL"]


def test_a_child_is_killed_at_once(reactor: Reactor, started: Started) -> None:
    """Whatever it does; its end is told as any other."""
    started.child.kill()
    assert reactor.signals == ["KILL"]


def test_no_child_outlives_the_reactor(reactor: Reactor, started: Started) -> None:
    """One that is stopped does not see the end of its socket, and would be left."""
    other = Started(reactor)
    reactor.exit(ProcessDone(0))  # of the other one
    reactor.disconnect()
    assert other.ended == ["exit code 0"]
    assert len(reactor.triggers) == 1
    reactor.triggers.pop(0)()  # as Twisted does
    assert reactor.signals == ["KILL"]
    assert started.ended == []


def test_a_child_that_ends_in_the_last_turn(reactor: Reactor, started: Started) -> None:
    """The reactor has forgotten the trigger by the time that the killed child is gone."""
    reactor.triggers.pop(0)()
    reactor.exit(ProcessTerminated(signal=9))
    reactor.disconnect()
    assert started.ended == ["signal 9"]


def test_a_socket_that_outlives_the_process_is_aborted(reactor: Reactor, started: Started) -> None:
    """A process that a child has started itself may hold its socket; the child has ended nevertheless."""
    reactor.exit(ProcessDone(0))
    reactor.advance(EXIT_S)
    assert reactor.transport.is_aborted
    reactor.disconnect()
    assert started.ended == ["exit code 0"]


# Log


def test_its_errors_are_logged(reactor: Reactor, started: Started, log: Captured) -> None:
    """Each line of standard error is a line of the log, safe to print, also the last one that has no end."""
    reactor.process.errReceived(b"one\nt")
    reactor.process.errReceived(b"w\x1bo\n\nthree")
    reactor.process.errConnectionLost()
    reactor.process.errConnectionLost()
    assert log.texts == [f"child process 4711: {text}" for text in ("one", "tw\\x1bo", "three")]


def test_its_lines_are_bounded(reactor: Reactor, started: Started, log: Captured) -> None:
    """Long lines are cut, also those that have no end, and of very many the rest is counted."""
    reactor.process.errReceived(b"x" * (MAX_LINE_BYTES + 1))
    assert log.texts == [f"child process 4711: {'x' * MAX_LINE_BYTES}"]
    reactor.process.errReceived(b"y\n" * (MAX_LINES + 2))
    assert len(log.texts) == MAX_LINES
    reactor.advance(LINES_PERIOD_S)
    reactor.process.errReceived(b"z\n")
    assert log.texts[MAX_LINES:] == ["child process 4711: 3 lines were left out", "child process 4711: z"]


def test_a_child_can_inherit_descriptors(reactor: Reactor) -> None:
    """They are its descriptors from 3 on."""
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        start_child(reactor, ["-m", "module"], print, print, (one.fileno(), other.fileno()))
        mapped = reactor.others["childFDs"]
        assert (mapped[3], mapped[4], mapped[2]) == (one.fileno(), other.fileno(), "r")
