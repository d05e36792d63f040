"""PURE: fair queuing of processor time: which peers are processed now, and which are queued.

In each turn, the reactor reads from every peer that has sent something. The cost of processing what peers send varies
by a factor of a thousand, so neither bytes nor frames tell how long other peers are delayed. Therefore this module
measures time:

* Peers that send cheap chunks, as nearly all honest peers do, are processed as soon as they are read.
* A peer whose last chunk was costly is processed immediately only while such peers have used little of this turn.
  Otherwise it is paused and queued (`FairQueue.enqueue`). The queue runs for a bounded time in each turn, before
  sockets are polled. It is start-time fair queuing over client addresses, and round robin over the connections of each.
* If the cheap chunks of one address add up to much time in one turn, the rest of them are queued, too.

So one address, or all costly peers together, can lengthen a turn by `SHORT_TURN_S` and one job. Short turns are
inefficient, so a turn may take `LONG_TURN_S` while no cheap peer is active.

A job is one piece of work that is small enough not to delay others: a connection limits it to a number of frames,
having measured the cost of one. All connections of a client address have the same `Share`. Times are seconds of a
high-resolution clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from math import inf
from typing import Final

__all__ = [
    "CHEAP_ALLOWANCE_S",
    "COSTLY_FOR_S",
    "COSTLY_S",
    "LONG_TURN_S",
    "NO_ALLOWANCE_S",
    "SHORT_TURN_S",
    "UNLIMITED_ALLOWANCE_S",
    "FairQueue",
    "Share",
]

COSTLY_S: Final = 0.0002
"""A chunk that takes longer makes its sender costly. A message of a few hundred bytes takes a tenth of this."""
COSTLY_FOR_S: Final = 1.0
"""How long a sender stays costly after its last costly chunk."""
SHORT_TURN_S: Final = 0.00025
LONG_TURN_S: Final = 0.004
INTERACTIVE_S: Final = 0.05
"""How long turns stay short after a cheap chunk."""

# A connection calls `FairQueue.may_run` only if its address has used more than the connection's allowance in this turn.
CHEAP_ALLOWANCE_S: Final = 0.001
NO_ALLOWANCE_S: Final = -1.0
"""The allowance of a costly connection: it always calls `FairQueue.may_run`."""
UNLIMITED_ALLOWANCE_S: Final = inf


class Share:
    """The processor time that one client address has used; made by `FairQueue.join`."""

    __slots__ = ("_connections", "_is_queued", "_jobs", "_key", "_start_tag_s", "spent_s")

    def __init__(self, key: Hashable) -> None:
        self.spent_s = 0.0
        """The time used in this turn."""
        self._key = key
        self._connections = 0
        self._jobs: deque[Callable[[], None]] | None = None
        """Those that are queued. An empty queue takes more memory than the rest of a share."""
        self._is_queued = False
        self._start_tag_s = 0.0


class FairQueue:
    """The queue of one reactor; see the module's docstring.

    ``call_soon`` calls a function once, in the next turn. ``cpu_clock`` counts only the time of this thread, and is
    several times slower to read; use it where other programs' work must not be charged to a peer. If `begin_turn` is
    never called, a turn is the time between two runs of the queue.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        cpu_clock: Callable[[], float] | None = None,
    ) -> None:
        self.clock = clock
        self.cpu_clock = clock if cpu_clock is None else cpu_clock
        self._call_soon = call_soon
        self._shares: dict[Hashable, Share] = {}
        self._active: list[Share] = []
        self._costly_s = 0.0
        self._interactive_at_s = -inf
        # Queued shares by start tag, in virtual time. The sequence number breaks ties in order of arrival.
        self._heap: list[tuple[float, int, Share]] = []
        self._sequence = 0
        self._virtual_time_s = 0.0
        self._is_scheduled = False

    # Connections

    def join(self, key: Hashable) -> Share:
        """Add a connection of a client address, and return the share of that address."""
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(key)
        share._connections += 1
        return share

    def leave(self, share: Share) -> None:
        """Remove a connection that had joined. If its job is queued, it is still called once."""
        share._connections -= 1
        if not share._connections:
            del self._shares[share._key]

    def __len__(self) -> int:
        """Return the number of addresses that have connections."""
        return len(self._shares)

    # Turns

    def begin_turn(self) -> None:
        """Reset what is counted per turn; call it when a turn of the reactor begins."""
        for share in self._active:
            share.spent_s = 0.0
        self._active.clear()
        self._costly_s = 0.0

    def turn_s(self, now_s: float) -> float:
        """Return how long costly peers may run in this turn, which is also the longest that one job should take."""
        return SHORT_TURN_S if now_s - self._interactive_at_s < INTERACTIVE_S else LONG_TURN_S

    def charge(self, share: Share, began_s: float, ended_s: float, is_costly: bool) -> bool:
        """Record that a chunk was processed between ``began_s`` and ``ended_s``; return whether that was costly.

        ``is_costly`` tells whether the connection counted as costly before.
        """
        spent_s = ended_s - began_s
        if not share.spent_s:
            self._active.append(share)
        share.spent_s += spent_s
        if spent_s > COSTLY_S:
            self._costly_s += spent_s
            return True
        if not is_costly:
            self._interactive_at_s = ended_s
        return False

    def may_run(self, share: Share, now_s: float, *, is_costly: bool) -> bool:
        """Return whether to process a chunk now, although its address has used more than the connection's allowance."""
        if is_costly:
            return not self._heap and self._costly_s < self.turn_s(now_s)
        # An address that is alone in this turn delays no other.
        return not self._heap and len(self._active) == 1 and share.spent_s < LONG_TURN_S

    # Queue

    def enqueue(self, share: Share, job: Callable[[], None]) -> None:
        """Call ``job`` when it is the turn of this address and, within the address, of this connection."""
        if share._jobs is None:
            share._jobs = deque()
        share._jobs.append(job)
        if not share._is_queued:
            share._is_queued = True
            # Idle time earns no credit: an address that was idle starts level with the others.
            share._start_tag_s = max(share._start_tag_s, self._virtual_time_s)
            self._push(share)
        self._schedule()

    def _push(self, share: Share) -> None:
        self._sequence += 1
        heappush(self._heap, (share._start_tag_s, self._sequence, share))

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._run)

    def _run(self) -> None:
        """Run jobs for the time of one turn, and at least one job."""
        self._is_scheduled = False
        self.begin_turn()
        now_s = self.clock()
        end_s = now_s + self.turn_s(now_s)
        try:
            while self._heap and now_s < end_s:
                now_s = self._run_next(now_s)
        finally:
            if self._heap:
                self._schedule()

    def _run_next(self, began_s: float) -> float:
        """Run the next job, and return the time at which it ended."""
        self._virtual_time_s, _, share = heappop(self._heap)
        try:
            if share._jobs:
                share._jobs.popleft()()
        finally:
            ended_s = self.clock()
            share._start_tag_s += ended_s - began_s
            if share._jobs:
                self._push(share)
            else:
                share._jobs = None
                share._is_queued = False
        return ended_s
