"""PURE: fair queuing of the processor: who may make the relay work now, and who waits for a turn.

A turn of the reactor reads from every peer that has sent something. What peers send differs a thousandfold in what it
costs, so bytes and frames say nothing about how long others wait. This measures time:

* Peers whose chunks are cheap, as those of nearly all honest peers are, are processed as they are read.
* A peer whose last chunk was costly is processed directly only while such peers have used little of this turn.
  Otherwise it is paused and queued (`FairQueue.wait`), and the queue works for a bounded time in each turn, before
  sockets are polled: start-time fair queuing over client addresses, and round robin over the connections of one.
* An address whose cheap chunks add up to much in one turn has the rest of them queued, too.

So what one address, or all costly peers together, can add to a turn is `SHORT_TURN_S` and one piece of work. Where
no peer is waiting that is cheap to serve, short turns would be a waste: then a turn may take `LONG_TURN_S`.

A job is one piece of work, small enough not to hold up others: a connection limits it by frames, having measured what
one costs. The connections of one client address share a `Share`. Times are seconds of a fine clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from math import inf
from typing import Final

__all__ = [
    "CHEAP",
    "COSTLY",
    "COSTLY_FOR_S",
    "COSTLY_S",
    "LONG_TURN_S",
    "SHORT_TURN_S",
    "UNBOUNDED",
    "FairQueue",
    "Share",
]

COSTLY_S: Final = 0.0002
"""A chunk that takes longer makes its sender a costly one. A message of some hundred bytes takes a tenth of it."""
COSTLY_FOR_S: Final = 1.0
"""How long a sender stays costly after its last costly chunk."""
SHORT_TURN_S: Final = 0.00025
LONG_TURN_S: Final = 0.004
INTERACTIVE_S: Final = 0.05
"""Turns are short for so long after a cheap chunk."""

CHEAP: Final = 0.001
COSTLY: Final = -1.0
UNBOUNDED: Final = inf
"""What a connection's address may have spent in this turn, so that the connection need not ask `FairQueue.may_run`."""


class Share:
    """What one client address has used; `FairQueue.join` makes it."""

    __slots__ = ("_connections", "_is_queued", "_key", "_started_s", "_waiting", "spent_s")

    def __init__(self, key: Hashable) -> None:
        self.spent_s = 0.0
        """In this turn."""
        self._key = key
        self._connections = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_queued = False
        self._started_s = 0.0


class FairQueue:
    """The queue of one reactor; see the module's text.

    ``call_soon`` calls something once, in the next turn. ``cpu_clock`` does not count what other programs do meanwhile,
    and takes several times as long to ask; it is for what must never be held against a peer by mistake. Where nobody
    calls `begin_turn`, a turn is what is between two runs of the queue.
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
        self._touched: list[Share] = []
        self._costly_s = 0.0
        self._interactive_at_s = -inf
        # Waiting shares by the virtual time at which their turn starts. The number breaks ties in order of arrival.
        self._heap: list[tuple[float, int, Share]] = []
        self._number = 0
        self._virtual_s = 0.0
        self._is_called = False

    # Connections

    def join(self, key: Hashable) -> Share:
        """The share of a client address, for one more of its connections."""
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(key)
        share._connections += 1
        return share

    def leave(self, share: Share) -> None:
        """A connection that had joined is gone. Its queued job is still called once."""
        share._connections -= 1
        if not share._connections:
            del self._shares[share._key]

    def __len__(self) -> int:
        """How many addresses have connections."""
        return len(self._shares)

    # Turns

    def begin_turn(self) -> None:
        """A turn of the reactor begins."""
        for share in self._touched:
            share.spent_s = 0.0
        self._touched.clear()
        self._costly_s = 0.0

    def turn_s(self, now_s: float) -> float:
        """How long costly peers may work in this turn; also how long one job should take at most."""
        return SHORT_TURN_S if now_s - self._interactive_at_s < INTERACTIVE_S else LONG_TURN_S

    def charge(self, share: Share, began_s: float, ended_s: float, is_costly: bool) -> bool:
        """A connection, costly so far or not, made the relay work between then and then. True if that was costly."""
        spent_s = ended_s - began_s
        if not share.spent_s:
            self._touched.append(share)
        share.spent_s += spent_s
        if spent_s > COSTLY_S:
            self._costly_s += spent_s
            return True
        if not is_costly:
            self._interactive_at_s = ended_s
        return False

    def may_run(self, share: Share, now_s: float, *, is_costly: bool) -> bool:
        """Whether to process a chunk as it is read, although its address has spent more than the connection minds."""
        if is_costly:
            return not self._heap and self._costly_s < self.turn_s(now_s)
        # Nobody waits for an address that has the whole turn for itself.
        return not self._heap and len(self._touched) == 1 and share.spent_s < LONG_TURN_S

    # Waiting

    def wait(self, share: Share, job: Callable[[], None]) -> None:
        """Call ``job`` when it is the turn of this address and, within it, of this connection."""
        share._waiting.append(job)
        if not share._is_queued:
            share._is_queued = True
            # Having waited for nothing earns nothing: an address that was idle starts with the others.
            share._started_s = max(share._started_s, self._virtual_s)
            self._push(share)
        self._call()

    def _push(self, share: Share) -> None:
        self._number += 1
        heappush(self._heap, (share._started_s, self._number, share))

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._call_soon(self._run)

    def _run(self) -> None:
        """Work for the time of one turn, on one job at least."""
        self._is_called = False
        self.begin_turn()
        now_s = self.clock()
        end_s = now_s + self.turn_s(now_s)
        try:
            while self._heap and now_s < end_s:
                now_s = self._serve(now_s)
        finally:
            if self._heap:
                self._call()

    def _serve(self, began_s: float) -> float:
        """Do the next job; when it ended."""
        self._virtual_s, _, share = heappop(self._heap)
        try:
            share._waiting.popleft()()
        finally:
            ended_s = self.clock()
            share._started_s += ended_s - began_s
            if share._waiting:
                self._push(share)
            else:
                share._is_queued = False
        return ended_s
