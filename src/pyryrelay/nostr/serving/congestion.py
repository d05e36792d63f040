"""How many events wait to be verified or written, and which publishers are not read from meanwhile. PURE.

Events count by their weight, `pyryrelay.nostr.events.weight_of`, so that limits bound work. A single event always
passes.

A publisher goes on once no more than ``max_pending`` of its connection wait, and no more than a quarter of the queue of
its client (spec section 13). The fuller the queue, the fewer may wait of a connection: those with the most are stopped
first. While live delivery is behind, whoever publishes is stopped until it has caught up. Nothing is refused or dropped
here.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol


class Waiter(Protocol):
    """A publisher. ``pending`` is the weight of its events that wait, ``key`` is that of its client."""

    pending: int

    @property
    def key(self) -> Hashable:
        """What connections of one client have in common."""

    def go_on(self) -> None:
        """Read from the publisher again."""


class Congestion:
    """Counts what waits. None is no limit."""

    __slots__ = ("_by_client", "_stopped", "is_behind", "is_behind_elsewhere", "max_pending", "max_queue", "total")

    def __init__(self) -> None:
        """Start without limits."""
        self.max_pending: int | None = None
        self.max_queue: int | None = None
        self.is_behind = False
        """Whether more events wait for their delivery than it can take on."""
        self.is_behind_elsewhere = False
        """The same of another worker of the relay."""
        self.total = 0
        self._by_client: dict[Hashable, int] = {}
        self._stopped: dict[Waiter, None] = {}

    @property
    def stopped(self) -> int:
        """How many publishers are not read from."""
        return len(self._stopped)

    def add(self, waiter: Waiter, weight: int) -> None:
        """Note that events of a publisher wait."""
        waiter.pending += weight
        self.total += weight
        self._by_client[waiter.key] = self._by_client.get(waiter.key, 0) + weight

    def remove(self, waiter: Waiter, weight: int) -> None:
        """Note that events are answered, and let the publisher go on if it may. Call `wake` soon, for the others."""
        waiter.pending -= weight
        self.total -= weight
        left = self._by_client[waiter.key] - weight
        if left:
            self._by_client[waiter.key] = left
        else:
            del self._by_client[waiter.key]
        if waiter in self._stopped:
            self._wake(waiter)

    def may_go_on(self, waiter: Waiter) -> bool:
        """Tell whether more may be read from a publisher."""
        pending, limit, queue = waiter.pending, self.max_pending, self.max_queue
        if (self.is_behind or self.is_behind_elsewhere) and (pending or waiter in self._stopped):
            return False
        has_its_share = queue is None or self._by_client.get(waiter.key, 0) <= queue // 4
        if not pending:
            # Many connections of one client could hold the whole queue if each went on as soon as it is answered.
            return has_its_share or waiter not in self._stopped
        if limit is not None and pending > limit:
            return False
        return has_its_share and (queue is None or pending <= queue - self.total)

    def stop(self, waiter: Waiter) -> None:
        """Call `Waiter.go_on` once `may_go_on` is true."""
        self._stopped[waiter] = None

    def forget(self, waiter: Waiter) -> None:
        """Do not call a publisher that has left."""
        self._stopped.pop(waiter, None)

    def wake(self) -> None:
        """Let publishers go on that may, those with the least waiting first."""
        if not self._stopped:
            return
        for waiter in sorted(self._stopped, key=_pending):
            if waiter in self._stopped:
                self._wake(waiter)

    def _wake(self, waiter: Waiter) -> None:
        if self.may_go_on(waiter):
            del self._stopped[waiter]
            waiter.go_on()


def _pending(waiter: Waiter) -> int:
    return waiter.pending
