"""Ports of Twisted when no descriptor is left."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from tests.support.harness import LogReader
from twisted.internet.task import Clock

from pyryrelay.listen.exhaustion import PAUSE_S, TELL_S, Exhaustion, Pausing


class Port:
    """The part of a port that `Pausing` uses."""

    connected, disconnecting = True, False
    numberAccepts = 100  # noqa: N815

    def __init__(self) -> None:
        self.reads = 0
        self.is_read = True

    def fileno(self) -> int:
        """Return some descriptor."""
        return 0

    def doRead(self) -> str:
        """Accept."""
        self.reads += 1
        return "result"

    def stopReading(self) -> None:
        """Record it."""
        self.is_read = False

    def startReading(self) -> None:
        """Record it."""
        self.is_read = True


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets whether there is no descriptor left."""
    dup, is_full = os.dup, [True]

    def duplicate(descriptor: int) -> int:
        if is_full[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return dup(descriptor)

    monkeypatch.setattr(os, "dup", duplicate)

    def say(full: bool) -> None:
        is_full[0] = full

    return say


def test_it_pauses_and_goes_on(full: Any) -> None:
    """During the pause no connection is accepted and one line says so; then they are accepted one by one."""
    clock, port = Clock(), Port()
    Pausing(port, clock)
    full(False)
    assert port.doRead() == "result"
    assert (port.reads, port.numberAccepts) == (1, 100)
    full(True)
    with LogReader() as log:
        for _ in range(3):
            port.doRead()
            assert not port.is_read
            clock.advance(PAUSE_S)
            assert port.is_read
    assert [event["reason"] for event in log.events] == ["Too many open files"]
    assert port.reads == 1
    full(False)
    port.doRead()
    assert (port.reads, port.numberAccepts) == (2, 1)
    port.numberAccepts = 100
    clock.advance(TELL_S)
    port.doRead()
    assert (port.reads, port.numberAccepts) == (3, 100)


def test_it_pauses_as_soon_as_the_last_one_is_taken(full: Any) -> None:
    """The pause begins when the last descriptor is taken, before Twisted fails to accept."""
    clock, port = Clock(), Port()
    accept = port.doRead

    def take_the_last() -> str:
        full(True)
        return accept()

    port.doRead = take_the_last  # type: ignore[method-assign]
    Pausing(port, clock)
    full(False)
    with LogReader() as log:
        assert port.doRead() == "result"
    assert not port.is_read
    assert len(log.events) == 1


@pytest.mark.parametrize("ended", [{"connected": False}, {"disconnecting": True}])
def test_a_port_that_was_closed_meanwhile_stays_so(full: Any, ended: dict[str, bool]) -> None:
    """The end of a pause does not open a port that was closed meanwhile."""
    clock, port = Clock(), Port()
    Pausing(port, clock)
    with LogReader():
        port.doRead()
    for name, value in ended.items():
        setattr(port, name, value)
    clock.advance(PAUSE_S)
    assert not port.is_read
    port.doRead()
    assert not clock.getDelayedCalls()


def test_a_line_tells_how_many_were_left_out() -> None:
    """There is one line in ten seconds, whatever the reason, with the number of those left out."""
    clock = Clock()
    exhaustion = Exhaustion(clock.seconds)
    with LogReader() as log:
        for _ in range(5):
            exhaustion.tell(OSError(errno.ENFILE, "x"))
        clock.advance(TELL_S)
        exhaustion.tell(RuntimeError())
    assert [event["left_out"] for event in log.events] == [0, 4]
    assert log.events[0]["reason"] == "Too many open files in system"
