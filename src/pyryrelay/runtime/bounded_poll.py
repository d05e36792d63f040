"""How much one turn of the reactor may hold, and who comes first in it.

A reactor takes every descriptor that is ready into one turn, and timers wait until it is over. With a bound, the kernel
gives the rest out in the turns that follow, in order. But closing what peers left is expensive, and ten thousand
may leave at once: in the kernel's order everybody else would wait for all of them. So those who have hung up come
behind all others, and as many of them in a turn as there is time for (`CLOSING_S`); the rest is taken out of the
poll object until then.

Twisted has no option for it, so this puts itself between a reactor and the poll object that it keeps. It knows the
epoll reactor and the asyncio reactor on epoll; any other is left as it is. Times are seconds of a fine clock.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from itertools import islice
from time import perf_counter
from typing import Any, Final

__all__ = ["CLOSING_S", "MAX_EVENTS", "BoundedPoll", "bound_poll"]

MAX_EVENTS: Final = 256
CLOSING_S: Final = 0.004
"""How long a turn may take in which connections of peers that left are closed."""
FEWEST: Final = 8
"""Connections of peers that have hung up are closed in each turn, however long that takes."""

_IN: Final[int] = getattr(select, "EPOLLIN", 0x1)
_READ_HUNG_UP: Final[int] = getattr(select, "EPOLLRDHUP", 0x2000)
_HUNG_UP: Final[int] = _READ_HUNG_UP | getattr(select, "EPOLLHUP", 0x10) | getattr(select, "EPOLLERR", 0x8)


class BoundedPoll:
    """A `select.epoll` that gives out no more than ``most`` events at once, and those of peers that left last.

    ``began`` is called before each turn.
    """

    def __init__(
        self,
        poll: Any,
        most: int,
        began: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._poll = poll
        self._most = most
        self._began = began
        self._clock = clock
        self._masks: dict[int, int] = {}
        # Events of descriptors that have hung up. Until they are given out, the poll object does not know them.
        self._left: dict[int, int] = {}
        self._seen_off = 0
        self._most_seen_off = most
        self._gave_at_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)

    # What a reactor calls for each descriptor

    def register(self, fd: int, eventmask: int) -> None:
        """See `select.epoll.register`."""
        mask = eventmask | _READ_HUNG_UP if eventmask & _IN else eventmask
        self._poll.register(fd, mask)
        self._masks[fd] = mask

    def modify(self, fd: int, eventmask: int) -> None:
        """See `select.epoll.modify`."""
        self._take_back(fd)
        mask = eventmask | _READ_HUNG_UP if eventmask & _IN else eventmask
        self._poll.modify(fd, mask)
        self._masks[fd] = mask

    def unregister(self, fd: int) -> None:
        """See `select.epoll.unregister`."""
        self._masks.pop(fd, None)
        if self._left.pop(fd, None) is None:
            self._poll.unregister(fd)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """See `select.epoll.poll`."""
        most = self._most if maxevents < 0 else min(maxevents, self._most)
        if self._seen_off:
            self._adapt(self._clock() - self._gave_at_s)
        events: list[tuple[int, int]] = self._poll.poll(0 if self._left else timeout, most)
        self._seen_off = 0
        hung_up = [(fd, event & ~_READ_HUNG_UP) for fd, event in events if event & _HUNG_UP]
        if hung_up:
            if not self._left and len(events) < most and len(hung_up) <= self._most_seen_off:
                # All who are ready are known, and few of them have left: there is time for everybody.
                events = [pair for pair in events if not pair[1] & _HUNG_UP] + hung_up
                self._seen_off, self._gave_at_s = len(hung_up), self._clock()
            else:
                events = self._set_apart(events, most)
        self._began()
        if self._left:
            events += self._see_off(max(1, min(self._most_seen_off, most)))
        return events

    # Who has left

    def _set_apart(self, events: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
        """Find who has not hung up. The others are taken out of the poll object."""
        given: dict[int, int] = {}
        while True:
            found = 0
            for fd, event in events:
                if not event & _HUNG_UP or fd not in self._masks:
                    given[fd] = event
                else:
                    self._poll.unregister(fd)
                    self._left[fd] = event & ~_READ_HUNG_UP
                    found += 1
            if not found or len(events) < most or len(given) >= most:
                return list(given.items())
            # All of the kernel's list may be of peers that have left, and somebody who is there at its end.
            events = self._poll.poll(0, most)

    def _see_off(self, most: int) -> list[tuple[int, int]]:
        """The first of those who have left. If they are not done with by then, they leave again."""
        given = list(islice(self._left.items(), most))
        for fd, _ in given:
            self._take_back(fd)
        self._seen_off = len(given)
        self._gave_at_s = self._clock()
        return given

    def _take_back(self, fd: int) -> None:
        if self._left.pop(fd, None) is not None:
            self._poll.register(fd, self._masks[fd])

    def _adapt(self, spent_s: float) -> None:
        """See fewer off in a turn if the last one took too long, and more if there was time left."""
        if spent_s > CLOSING_S:
            self._most_seen_off = max(FEWEST, min(self._most_seen_off, self._seen_off) // 2)
        elif self._seen_off >= self._most_seen_off:
            self._most_seen_off = min(self._most, 2 * self._most_seen_off)


def bound_poll(reactor: Any, most: int = MAX_EVENTS, began: Callable[[], None] = lambda: None) -> bool:
    """Let no turn hold more than ``most`` descriptors, and call ``began`` before each.

    False where it is unknown how; asking again changes nothing.
    """
    # twisted.internet.epollreactor keeps it as _poller; asyncio's loop in its selector.
    selector = getattr(getattr(reactor, "_asyncioEventloop", None), "_selector", None)
    for keeper, name in ((reactor, "_poller"), (selector, "_selector")):
        poll = getattr(keeper, name, None)
        if isinstance(poll, BoundedPoll):
            return True
        if hasattr(select, "epoll") and isinstance(poll, select.epoll):
            setattr(keeper, name, BoundedPoll(poll, most, began))
            return True
    return False
