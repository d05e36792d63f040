"""One timer for every connection: a wheel of half-second slots.

A connection has at most one place on the wheel, so ten thousand connections cost one delayed call, and arming,
re-arming and cancelling are O(1). Deadlines are met late by at most one slot, never early. A slot that holds many
connections is worked off in slices, so that no turn of the reactor is held for long.

A turn that is late is put off once by a slot: timers run before sockets are read, and what a peer sent in time may
wait there while this process was busy.

Times are seconds of the monotonic clock ``now``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger()

SLOT_S = 0.5
SLICE = 256
LATE_S = 1.0
"""A turn that is later than this was held up by something else."""


class Timed(Protocol):
    """Something that can sit on the wheel. It starts with ``wheel_slot = None`` and never writes it itself."""

    wheel_slot: int | None

    def deadline_reached(self, now: float) -> None:
        """The deadline has passed; the place on the wheel is empty again."""


class TimerWheel:
    """See the module's text."""

    def __init__(self, reactor: IReactorTime, now: Callable[[], float], slot_s: float = SLOT_S) -> None:
        self._reactor = reactor
        self._now = now
        self._slot_s = slot_s
        self._slots: dict[int, dict[Timed, None]] = {}
        self._done = math.floor(now() / slot_s)
        self._call: object | None = None
        self._planned_s = 0.0
        self._put_off = False

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._slots.values()))

    def arm(self, timed: Timed, due_s: float) -> None:
        """Call ``timed.deadline_reached`` at ``due_s`` or up to one slot later, instead of any earlier arming."""
        self.cancel(timed)
        # Never into a slot that is being worked off: a deadline that is armed anew there would spin.
        slot = max(math.ceil(due_s / self._slot_s), self._done + 1)
        self._slots.setdefault(slot, {})[timed] = None
        timed.wheel_slot = slot
        if self._call is None:
            self._schedule()

    def arm_by(self, timed: Timed, due_s: float) -> None:
        """The same, unless it is armed for an earlier time: then that stays, and whoever is called finds out."""
        if timed.wheel_slot is None or due_s <= (timed.wheel_slot - 1) * self._slot_s:
            self.arm(timed, due_s)

    def cancel(self, timed: Timed) -> None:
        """Forget it; nothing where it is not armed."""
        slot = timed.wheel_slot
        if slot is None:
            return
        timed.wheel_slot = None
        waiting = self._slots[slot]
        del waiting[timed]
        if not waiting:
            del self._slots[slot]

    def _schedule(self, delay_s: float | None = None) -> None:
        """Turn after ``delay_s``, or when the next slot is due."""
        if delay_s is None:
            now = self._now()
            delay_s = (math.floor(now / self._slot_s) + 1) * self._slot_s - now
        self._planned_s = self._now() + delay_s
        self._call = self._reactor.callLater(delay_s, self._turn)

    def _turn(self) -> None:
        """Work off what is due, a slice at a time; sleep for ever when nothing waits."""
        now = self._now()
        self._put_off = bool(self._slots) and now - self._planned_s > LATE_S and not self._put_off
        if self._put_off:
            self._schedule(self._slot_s)
            return
        self._done = due_slot = math.floor(now / self._slot_s)
        budget = SLICE
        while budget:
            slot = min((slot for slot in self._slots if slot <= due_slot), default=None)
            if slot is None:
                break
            budget -= self._work_off(slot, budget, now)
        self._call = None
        if self._slots:
            self._schedule(None if budget else 0)

    def _work_off(self, slot: int, budget: int, now: float) -> int:
        # A slice taken at once: looking for the first entry of a dict walks over all that were deleted before it.
        timeds = list(islice(self._slots[slot], budget))
        for timed in timeds:
            if timed.wheel_slot != slot:
                continue  # cancelled, or armed anew, by one before it
            self.cancel(timed)
            try:
                timed.deadline_reached(now)
            except Exception:
                # One connection's fault must not stop the clock of all others.
                _log.failure("A connection failed at its deadline")
        return len(timeds)
