"""One timer for all connections: a timer wheel with slots of half a second.

A connection is in at most one slot, so ten thousand connections need one delayed call, and arming, re-arming and
cancelling are O(1). Deadlines are reached at most one slot late, and never early. A slot with many connections is
processed in slices, so that no turn of the reactor is blocked for long.

A tick that comes too late is postponed once, by one slot: timers run before sockets are read, and data that peers sent
in time may still wait there because this process was busy.

Times are seconds of the monotonic clock ``now``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="pyryrelay")

SLOT_S = 0.5
SLICE = 256
"""Deadlines that are processed in one turn of the reactor."""
LATE_S = 1.0
"""A tick that is later than this was delayed by other work."""


class Timed(Protocol):
    """An object with a deadline. Set ``wheel_slot`` to None when it is created; later only the wheel changes it."""

    wheel_slot: int | None

    def deadline_reached(self, now: float) -> None:
        """Handle the deadline. The object is no longer armed, and may be armed again."""


class TimerWheel:
    """A timer wheel on one delayed call; see the module's docstring."""

    def __init__(self, reactor: IReactorTime, now: Callable[[], float], slot_s: float = SLOT_S) -> None:
        self._reactor = reactor
        self._now = now
        self._slot_s = slot_s
        self._slots: dict[int, dict[Timed, None]] = {}
        self._last_slot = math.floor(now() / slot_s)  # the last one that was due
        self._call: object | None = None
        self._scheduled_for_s = 0.0
        self._is_postponed = False

    def __len__(self) -> int:
        """Return the number of armed objects."""
        return sum(map(len, self._slots.values()))

    def arm(self, timed: Timed, due_s: float) -> None:
        """Call ``timed.deadline_reached`` at ``due_s`` or up to one slot later. This replaces an earlier arming."""
        self.cancel(timed)
        # Never into a slot that is being processed: a deadline that is armed again there would loop for ever.
        slot = max(math.ceil(due_s / self._slot_s), self._last_slot + 1)
        self._slots.setdefault(slot, {})[timed] = None
        timed.wheel_slot = slot
        if self._call is None:
            self._schedule()

    def arm_by(self, timed: Timed, due_s: float) -> None:
        """Arm for ``due_s`` unless it is armed for an earlier time, which then stays: the callee has to check."""
        if timed.wheel_slot is None or due_s <= (timed.wheel_slot - 1) * self._slot_s:
            self.arm(timed, due_s)

    def cancel(self, timed: Timed) -> None:
        """Disarm an object; do nothing if it is not armed."""
        slot = timed.wheel_slot
        if slot is None:
            return
        timed.wheel_slot = None
        waiting = self._slots[slot]
        del waiting[timed]
        if not waiting:
            del self._slots[slot]

    def _schedule(self, delay_s: float | None = None) -> None:
        """Schedule the next tick after ``delay_s``, or when the next slot is due."""
        if delay_s is None:
            now = self._now()
            delay_s = (math.floor(now / self._slot_s) + 1) * self._slot_s - now
        self._scheduled_for_s = self._now() + delay_s
        self._call = self._reactor.callLater(delay_s, self._tick)

    def _tick(self) -> None:
        """Process one slice of the due deadlines. Schedule the next tick only if objects are armed."""
        now = self._now()
        self._is_postponed = bool(self._slots) and now - self._scheduled_for_s > LATE_S and not self._is_postponed
        if self._is_postponed:
            self._schedule(self._slot_s)
            return
        self._last_slot = due_slot = math.floor(now / self._slot_s)
        budget = SLICE
        while budget:
            slot = min((slot for slot in self._slots if slot <= due_slot), default=None)
            if slot is None:
                break
            budget -= self._process(slot, budget, now)
        self._call = None
        if self._slots:
            self._schedule(None if budget else 0)

    def _process(self, slot: int, budget: int, now: float) -> int:
        # Take the whole slice at once: finding the first entry of a dict walks over all entries deleted before it.
        timeds = list(islice(self._slots[slot], budget))
        for timed in timeds:
            if timed.wheel_slot != slot:
                continue  # cancelled or armed again by an earlier one
            self.cancel(timed)
            try:
                timed.deadline_reached(now)
            except Exception:
                # A fault in one connection must not stop the timers of all others.
                _log.failure("A connection failed at its deadline")
        return len(timeds)
