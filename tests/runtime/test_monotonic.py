"""The reactor's timers follow the monotonic clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import base
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock
from twisted.python import runtime

from pyryrelay.runtime import twisted_internals
from pyryrelay.runtime.monotonic import follow_monotonic_clock


class Times:
    """A wall clock and a monotonic one, which only the test moves."""

    def __init__(self) -> None:
        self.wall_s = 1_800_000_000.0
        self.monotonic_s = 50.0

    def wall(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    """The wall clock that new reactors follow."""
    times = Times()
    wall = times.wall  # Each look-up of a bound method returns another object.
    monkeypatch.setattr(twisted_internals, "wall_clock", wall)
    monkeypatch.setattr(base.ReactorBase, "seconds", staticmethod(wall))
    return times


@pytest.fixture(params=["epoll", "asyncio"])
def reactor(request: pytest.FixtureRequest, times: Times) -> Iterator[Any]:
    """A reactor that does not run; `runUntilCurrent` makes the calls that are due."""
    if request.param == "epoll":
        epoll = EPollReactor()
        yield epoll
        epoll._poller.close()
    else:
        loop = asyncio.SelectorEventLoop()
        yield AsyncioSelectorReactor(loop)
        loop.close()


def test_what_a_jump_of_the_wall_clock_does_to_a_reactor(reactor: Any, times: Times) -> None:
    """Without help, a call is late by as much as the clock was set back."""
    called: list[int] = []
    reactor.callLater(0, called.append, 0)
    times.wall_s -= 600
    times.pass_by(599)
    reactor.runUntilCurrent()
    assert called == []


@pytest.mark.parametrize("jump_s", [-600.0, 600.0])
def test_calls_are_made_in_their_time_whatever_the_wall_clock_does(reactor: Any, times: Times, jump_s: float) -> None:
    """Calls from before and after the change of clock are neither late nor early."""
    called: list[int] = []
    reactor.callLater(2, called.append, 2)
    assert follow_monotonic_clock(reactor, times.monotonic)
    reactor.callLater(0, called.append, 0)
    reactor.callLater(1, called.append, 1)
    moved = reactor.callLater(9, called.append, 3)
    times.wall_s += jump_s
    moved.reset(3)
    assert reactor.timeout() == 0
    for due in range(4):
        reactor.runUntilCurrent()
        assert called == list(range(due + 1))
        times.pass_by(1)
    assert reactor.getDelayedCalls() == []


def test_time_goes_on_from_where_it_is(reactor: Any, times: Times) -> None:
    """The change of clock is no jump, so that times that Twisted noted before stay comparable."""
    assert follow_monotonic_clock(reactor, times.monotonic)
    times.wall_s -= 600
    assert not follow_monotonic_clock(reactor, times.monotonic)
    assert reactor.seconds() == 1_800_000_000.0
    times.pass_by(5)
    assert reactor.seconds() == 1_800_000_005.0


@pytest.mark.parametrize("other", [Clock(), object()])
def test_other_clocks_are_left_alone(other: Any) -> None:
    """A reactor with a clock of its own, as in tests, is left unchanged."""
    assert not follow_monotonic_clock(other)
    assert "seconds" not in vars(other) if hasattr(other, "__dict__") else True


def test_the_clock_of_every_reactor_is_known() -> None:
    """Every reactor of Twisted has its wall clock where it is replaced."""
    assert base.ReactorBase.seconds is runtime.seconds
