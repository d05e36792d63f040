"""Bound the number of events in one turn of the reactor, and return hang-ups last.

A turn is one iteration of the reactor. A reactor handles all ready descriptors in the same turn, and timers wait until
the turn is over. With a bound, the kernel returns the remaining descriptors in the following turns, in order.

Closing the connection of a peer that has hung up is expensive, and ten thousand peers may hang up at once. In the
kernel's order all other connections would wait for them. Therefore hang-ups are returned after all other events, and
only as many per turn as can be handled within `HANGUP_BUDGET_S`. The descriptors of the others are unregistered from
the poll object until then.

Twisted has no option for this, so `bound_poll` puts a proxy between a reactor and its poll object. It supports the
epoll reactor and the asyncio reactor on epoll, and leaves other reactors unchanged. Times are seconds of a
high-resolution clock.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from itertools import islice
from time import perf_counter
from typing import Any, Final

from pyryrelay.runtime.twisted_internals import epoll_owner

__all__ = ["HANGUP_BUDGET_S", "MAX_EVENTS", "BoundedPoll", "bound_poll"]

MAX_EVENTS: Final = 256
HANGUP_BUDGET_S: Final = 0.004
"""Time per turn for closing the connections of peers that have hung up."""
MIN_HANGUPS: Final = 8
"""Hang-ups that are returned in each turn even if handling them exceeds the budget."""

_IN: Final[int] = getattr(select, "EPOLLIN", 0x1)
_READ_HUNG_UP: Final[int] = getattr(select, "EPOLLRDHUP", 0x2000)
_HUNG_UP: Final[int] = _READ_HUNG_UP | getattr(select, "EPOLLHUP", 0x10) | getattr(select, "EPOLLERR", 0x8)


class BoundedPoll:
    """A `select.epoll` that returns at most ``max_events`` events at once, hang-ups last.

    It calls ``before_turn`` before each turn.
    """

    def __init__(
        self,
        poll: Any,
        max_events: int,
        before_turn: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._poll = poll
        self._max_events = max_events
        self._before_turn = before_turn
        self._clock = clock
        self._masks: dict[int, int] = {}
        # Hang-ups that were not returned yet. Their descriptors are not registered with the poll object.
        self._pending_hangups: dict[int, int] = {}
        self._returned_hangups = 0
        self._max_hangups = max_events
        self._returned_at_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)

    # Called by the reactor for each descriptor

    def register(self, fd: int, eventmask: int) -> None:
        """See `select.epoll.register`."""
        mask = eventmask | _READ_HUNG_UP if eventmask & _IN else eventmask
        self._poll.register(fd, mask)
        self._masks[fd] = mask

    def modify(self, fd: int, eventmask: int) -> None:
        """See `select.epoll.modify`."""
        self._restore(fd)
        mask = eventmask | _READ_HUNG_UP if eventmask & _IN else eventmask
        self._poll.modify(fd, mask)
        self._masks[fd] = mask

    def unregister(self, fd: int) -> None:
        """See `select.epoll.unregister`."""
        self._masks.pop(fd, None)
        if self._pending_hangups.pop(fd, None) is None:
            self._poll.unregister(fd)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """See `select.epoll.poll`."""
        max_events = self._max_events if maxevents < 0 else min(maxevents, self._max_events)
        if self._returned_hangups:
            self._adapt(self._clock() - self._returned_at_s)
        events: list[tuple[int, int]] = self._poll.poll(0 if self._pending_hangups else timeout, max_events)
        self._returned_hangups = 0
        hangups = [(fd, event & ~_READ_HUNG_UP) for fd, event in events if event & _HUNG_UP]
        if hangups:
            if not self._pending_hangups and len(events) < max_events and len(hangups) <= self._max_hangups:
                # These are all ready descriptors, and the few hang-ups among them fit into this turn.
                events = [pair for pair in events if not pair[1] & _HUNG_UP] + hangups
                self._returned_hangups, self._returned_at_s = len(hangups), self._clock()
            else:
                events = self._hold_back_hangups(events, max_events)
        self._before_turn()
        if self._pending_hangups:
            events += self._take_hangups(max(1, min(self._max_hangups, max_events)))
        return events

    # Hang-ups

    def _hold_back_hangups(self, events: list[tuple[int, int]], max_events: int) -> list[tuple[int, int]]:
        """Return the events that are no hang-ups, and unregister the descriptors of those that are."""
        others: dict[int, int] = {}
        while True:
            found = 0
            for fd, event in events:
                if not event & _HUNG_UP or fd not in self._masks:
                    others[fd] = event
                else:
                    self._poll.unregister(fd)
                    self._pending_hangups[fd] = event & ~_READ_HUNG_UP
                    found += 1
            if not found or len(events) < max_events or len(others) >= max_events:
                return list(others.items())
            # Hang-ups may have filled the kernel's answer, with other events still behind them.
            events = self._poll.poll(0, max_events)

    def _take_hangups(self, count: int) -> list[tuple[int, int]]:
        """Return the oldest pending hang-ups and register them again; the kernel reports unhandled ones anew."""
        taken = list(islice(self._pending_hangups.items(), count))
        for fd, _ in taken:
            self._restore(fd)
        self._returned_hangups = len(taken)
        self._returned_at_s = self._clock()
        return taken

    def _restore(self, fd: int) -> None:
        if self._pending_hangups.pop(fd, None) is not None:
            self._poll.register(fd, self._masks[fd])

    def _adapt(self, spent_s: float) -> None:
        """Halve the hang-ups per turn if the last turn exceeded the budget; double them if they were all used."""
        if spent_s > HANGUP_BUDGET_S:
            self._max_hangups = max(MIN_HANGUPS, min(self._max_hangups, self._returned_hangups) // 2)
        elif self._returned_hangups >= self._max_hangups:
            self._max_hangups = min(self._max_events, 2 * self._max_hangups)


def bound_poll(reactor: Any, max_events: int = MAX_EVENTS, before_turn: Callable[[], None] = lambda: None) -> bool:
    """Limit each turn of a reactor to ``max_events`` descriptors, and call ``before_turn`` before each.

    Returns False for an unsupported reactor. Calling it again changes nothing.
    """
    found = epoll_owner(reactor)
    if found is None:
        return False
    poll = getattr(*found)
    if hasattr(select, "epoll") and isinstance(poll, select.epoll):
        setattr(*found, BoundedPoll(poll, max_events, before_turn))
        return True
    return isinstance(poll, BoundedPoll)
