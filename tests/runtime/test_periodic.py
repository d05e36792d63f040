"""Periodic work: a failure does not end it, and calls never overlap."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.capture import captured
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pyryrelay.runtime.periodic import Periodic


def test_each_call_has_its_interval() -> None:
    """The first call is after one interval, and none is after the stop."""
    clock, calls = Clock(), list[str]()
    periodic = Periodic(clock)
    periodic.every(1.0, lambda: calls.append("a"))
    periodic.every(2.0, lambda: calls.append("b"))
    assert calls == []
    clock.pump([1.0] * 4)
    assert sorted(calls) == ["a"] * 4 + ["b"] * 2
    periodic.stop()
    clock.pump([1.0] * 4)
    assert len(calls) == 6
    assert clock.getDelayedCalls() == []


def test_a_call_waits_for_the_one_before() -> None:
    """A call is put off until the Deferred of the previous one has fired."""
    clock, running = Clock(), list[Deferred[None]]()

    def call() -> Deferred[None]:
        running.append(Deferred())
        return running[-1]

    periodic = Periodic(clock)
    periodic.every(1.0, call)
    clock.pump([1.0] * 5)
    assert len(running) == 1
    running[0].callback(None)
    clock.pump([1.0] * 5)
    assert len(running) == 2
    periodic.stop()


def test_a_failure_is_logged_and_not_the_end() -> None:
    """A failure is logged and the work goes on, whether it is raised at once or later."""
    clock, calls = Clock(), list[int]()
    outcomes: list[Callable[[], object]] = [lambda: 1 / 0, lambda: succeed(0).addCallback(lambda zero: 1 / zero)]

    def call() -> object:
        calls.append(1)
        return outcomes.pop()() if outcomes else None

    periodic = Periodic(clock)
    with captured() as log:
        periodic.every(1.0, call)
        clock.pump([1.0] * 4)
    assert len(calls) == 4
    assert log.texts == ["Periodic work failed"] * 2
    periodic.stop()
