"""How much one turn of the reactor may hold.

A reactor takes every descriptor that is ready into one turn, and timers wait until it is over: ten thousand peers that
leave at once hold everybody else up for as long as it takes to see all of them off. With a bound, the kernel gives the
rest out in the turns that follow, in order.

Twisted has no option for it, so this puts itself between a reactor and the poll object that it keeps. It knows the
epoll reactor and the asyncio reactor on epoll; any other is left as it is.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

MAX_EVENTS = 256
"""Some 10 ms of peers that leave, which is the dearest thing that can happen to many at once."""


class BoundedPoll:
    """A `select.epoll` that gives out no more than ``most`` events at once."""

    def __init__(self, poll: Any, most: int, began: Callable[[], None] = lambda: None) -> None:
        self._poll = poll
        self._most = most
        self._began = began

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """See `select.epoll.poll`."""
        most = self._most if maxevents < 0 else min(maxevents, self._most)
        events: list[tuple[int, int]] = self._poll.poll(timeout, most)
        self._began()
        return events


def bound_turns(reactor: Any, most: int = MAX_EVENTS, began: Callable[[], None] = lambda: None) -> bool:
    """Let no turn hold more than ``most`` descriptors, and call ``began`` for each, before them.

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
