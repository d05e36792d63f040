"""The timer wheel: one delayed call for all connections; never early, at most one slot late."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.harness import LogReader
from twisted.internet.task import Clock

from pyryrelay.runtime.timer_wheel import SLICE, SLOT_S, TimerWheel

EIGHTH_S = 0.125
"""Times in tests are multiples of this, so that sums of floats are exact."""


class Timer:
    """A timer of the wheel that records when it was called."""

    def __init__(self, reached: Callable[[float], None] = lambda now: None) -> None:
        self.wheel_slot: int | None = None
        self.calls: list[float] = []
        self._reached = reached

    def deadline_reached(self, now: float) -> None:
        """Record, then do what the test wants."""
        assert self.wheel_slot is None
        self.calls.append(now)
        self._reached(now)


def wheel_at(start_s: float = 0.0) -> tuple[Clock, TimerWheel]:
    """Return a wheel on a clock of its own."""
    clock = Clock()
    clock.advance(start_s)
    return clock, TimerWheel(clock, clock.seconds)


def run(clock: Clock, seconds: float) -> None:
    """Let time pass in small steps."""
    for _ in range(round(seconds / EIGHTH_S)):
        clock.advance(EIGHTH_S)


@given(
    start=st.integers(0, 10_000),
    idle=st.integers(0, 200),
    due=st.integers(0, 400),
)
def test_a_deadline_is_never_early_and_at_most_one_slot_late(start: int, idle: int, due: int) -> None:
    """Whatever the time when it is armed, a deadline is met within one slot."""
    clock, wheel = wheel_at(start * EIGHTH_S)
    clock.advance(idle * EIGHTH_S)
    timer, due_s = Timer(), clock.seconds() + due * EIGHTH_S
    wheel.arm(timer, due_s)
    run(clock, due * EIGHTH_S + 3 * SLOT_S)
    assert len(timer.calls) == 1
    assert due_s <= timer.calls[0] <= due_s + SLOT_S


@given(due_s=st.floats(0, 1e6))
def test_no_float_makes_it_early(due_s: float) -> None:
    """Rounding never makes a deadline earlier."""
    clock, wheel = wheel_at()
    timer = Timer()
    wheel.arm(timer, due_s)
    clock.advance(max(math.nextafter(due_s, 0.0), 0.0))
    assert timer.calls == []
    clock.advance(2 * SLOT_S)
    assert len(timer.calls) == 1


def test_rearming_moves_the_deadline() -> None:
    """Arming again replaces the deadline, later or earlier."""
    clock, wheel = wheel_at()
    timer = Timer()
    for due_s in (5.0, 20.0, 3.0):
        wheel.arm(timer, due_s)
    assert len(wheel) == 1
    run(clock, 30)
    assert timer.calls == [3.0]


def test_cancelling_forgets() -> None:
    """A cancelled deadline is not met, and cancelling an unarmed timer does nothing."""
    clock, wheel = wheel_at()
    timer = Timer()
    wheel.cancel(timer)
    wheel.arm(timer, 1.0)
    wheel.cancel(timer)
    wheel.cancel(timer)
    run(clock, 5)
    assert (timer.calls, len(wheel)) == ([], 0)


def test_cancelling_leaves_no_empty_slot_behind() -> None:
    """A timer that is armed again and again uses the memory of one place."""
    _, wheel = wheel_at()
    timer = Timer()
    for due_s in range(1000):
        wheel.arm(timer, float(due_s))
    assert len(wheel._slots) == 1


def test_an_idle_wheel_has_no_delayed_call() -> None:
    """A wheel without timers has no delayed call, and one with ten thousand has one."""
    clock, wheel = wheel_at()
    assert not clock.getDelayedCalls()
    timers = [Timer() for _ in range(10_000)]
    for at, timer in enumerate(timers):
        wheel.arm(timer, float(at % 60))
    assert len(clock.getDelayedCalls()) == 1
    run(clock, 70)
    assert all(len(timer.calls) == 1 for timer in timers)
    assert not clock.getDelayedCalls()


def test_a_fault_in_one_does_not_stop_the_others() -> None:
    """An exception is logged without its text in the message, and the other timers are called."""
    clock, wheel = wheel_at()

    def fail(now: float) -> None:
        raise RuntimeError("secret")

    timers = [Timer(fail if at == 1 else lambda now: None) for at in range(3)]
    with LogReader() as log:
        for timer in timers:
            wheel.arm(timer, 1.0)
        run(clock, 2)
    assert [len(timer.calls) for timer in timers] == [1, 1, 1]
    assert log.failures == ["A connection failed at its deadline"]


def test_each_turn_is_one_slice() -> None:
    """A turn ends after a slice, and the next one follows at once."""
    turns: list[tuple[float, int]] = []
    met: list[float] = []

    class Reactor(Clock):
        def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> object:  # type: ignore[override]  # noqa: A002
            turns.append((delay, len(met)))
            return super().callLater(delay, callable, *args, **kw)

    clock = Reactor()
    wheel = TimerWheel(clock, clock.seconds)
    for _ in range(2 * SLICE + 10):
        wheel.arm(Timer(met.append), SLOT_S)
    clock.advance(SLOT_S)
    assert turns[1:] == [(0, SLICE), (0, 2 * SLICE)]
    assert len(met) == 2 * SLICE + 10


def test_slices_of_several_slots() -> None:
    """After a long sleep of the machine a turn is still one slice, the earliest deadlines first."""
    clock, wheel = wheel_at()
    met: list[int] = []
    for at in range(SLICE + 50):
        wheel.arm(Timer(lambda now, at=at: met.append(at)), float(at // 10))  # type: ignore[misc]
    clock.rightNow += 1000.0
    wheel._tick()
    assert met == []
    wheel._tick()
    assert met == list(range(SLICE))


def test_a_late_turn_is_put_off_once() -> None:
    """A late turn is put off once, so that data that arrived in time is read before deadlines are met."""
    clock, wheel = wheel_at()
    excused, guilty = Timer(), Timer()
    wheel.arm(excused, 1.0)
    wheel.arm(guilty, 1.0)
    clock.advance(30.0)
    assert (excused.calls, guilty.calls) == ([], [])
    wheel.cancel(excused)
    clock.advance(30.0)
    assert (excused.calls, len(guilty.calls)) == ([], 1)


def test_arming_from_inside_a_deadline() -> None:
    """A timer that arms itself for a time in the past is called again, but not in the same turn."""
    clock, wheel = wheel_at()
    timer = Timer(lambda now: wheel.arm(timer, now - 100.0) if len(timer.calls) < 3 else None)
    wheel.arm(timer, 1.0)
    clock.advance(1.0)
    assert len(timer.calls) == 1
    run(clock, 5 * SLOT_S)
    assert len(timer.calls) == 3
    assert timer.calls == sorted(set(timer.calls))


def test_cancelling_a_neighbour_from_inside_a_deadline() -> None:
    """A timer of the same slot that was cancelled meanwhile is not called, and one that was armed is."""
    clock, wheel = wheel_at()
    victim, late = Timer(), Timer()

    def strike(now: float) -> None:
        wheel.cancel(victim)
        wheel.arm(late, now)

    wheel.arm(Timer(strike), 1.0)
    wheel.arm(victim, 1.0)
    run(clock, 3.0)
    assert (victim.calls, len(late.calls)) == ([], 1)


@pytest.mark.parametrize("sleep_s", [0.0, 7.3, 86_400.0])
def test_a_long_sleep_of_the_clock(sleep_s: float) -> None:
    """A wheel that was idle for long, or a machine that slept, meets the next deadline in time."""
    clock, wheel = wheel_at(12.25)
    first = Timer()
    wheel.arm(first, 13.0)
    clock.advance(1.0 + sleep_s)
    clock.advance(SLOT_S)
    assert len(first.calls) == 1
    second, due_s = Timer(), clock.seconds() + 2.0
    wheel.arm(second, due_s)
    run(clock, 4)
    assert due_s <= second.calls[0] <= due_s + SLOT_S


def test_a_deadline_of_the_past_is_met_at_the_next_turn() -> None:
    """A timer may be armed for a time in the past."""
    clock, wheel = wheel_at(50.0)
    timer = Timer()
    wheel.arm(timer, 1.0)
    clock.advance(SLOT_S)
    assert len(timer.calls) == 1


class WheelMachine(RuleBasedStateMachine):
    """The wheel against a model that keeps one deadline for each timer and looks at all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.wheel = wheel_at(100.0)
        self.timers = [Timer() for _ in range(4)]
        self.due: dict[int, float] = {}

    @rule(at=st.integers(0, 3), ahead=st.integers(-8, 80))
    def arm(self, at: int, ahead: int) -> None:
        """Arm a timer, or arm it again."""
        due_s = self.clock.seconds() + ahead * EIGHTH_S
        self.wheel.arm(self.timers[at], due_s)
        self.due[at] = max(due_s, self.clock.seconds())

    @rule(at=st.integers(0, 3))
    def cancel(self, at: int) -> None:
        """Cancel a timer, armed or not."""
        self.wheel.cancel(self.timers[at])
        self.due.pop(at, None)

    @precondition(lambda self: self.due)
    @rule(steps=st.integers(1, 40))
    def wait(self, steps: int) -> None:
        """Let time pass; timers that are called are called in their window."""
        for _ in range(steps):
            self.clock.advance(EIGHTH_S)
            for at, timer in enumerate(self.timers):
                if timer.calls:
                    due_s = self.due.pop(at)
                    assert due_s <= timer.calls.pop() <= due_s + SLOT_S
                    assert not timer.calls

    @rule(steps=st.integers(1, 1000))
    def sleep(self, steps: int) -> None:
        """Let the machine sleep: one long step, and one slot for the late turn."""
        self.clock.advance(steps * EIGHTH_S)
        self.clock.advance(SLOT_S)
        for at, timer in enumerate(self.timers):
            if timer.calls:
                assert self.due.pop(at) <= timer.calls.pop()

    @invariant()
    def no_timer_is_overdue(self) -> None:
        """A timer that has been due for a slot was called."""
        assert all(self.clock.seconds() <= due_s + SLOT_S for due_s in self.due.values())

    @invariant()
    def counts_agree(self) -> None:
        """The wheel has the timers of the model, and a delayed call only if it has any."""
        assert len(self.wheel) == len(self.due)
        assert {at for at, timer in enumerate(self.timers) if timer.wheel_slot is not None} == set(self.due)
        assert len(self.clock.getDelayedCalls()) <= 1
        assert self.clock.getDelayedCalls() or not self.due


TestWheelMachine = WheelMachine.TestCase


def test_arming_by_a_time_keeps_an_earlier_place() -> None:
    """A timer with an earlier deadline is not moved; one with a later deadline, or none, is."""
    clock, wheel = wheel_at()
    timer = Timer()
    wheel.arm_by(timer, 2.0)
    wheel.arm_by(timer, 9.0)
    clock.pump([SLOT_S] * 5)
    assert timer.calls == [2.0]
    wheel.arm_by(timer, 9.0)
    wheel.arm_by(timer, 4.0)
    clock.pump([SLOT_S] * 10)
    assert timer.calls == [2.0, 4.0]
    assert len(wheel) == 0
