"""Whose query a reader works on next: fair by client, new queries first. PURE.

Each query runs in short slices. The client that has been given the least time so far is next, however many queries it
has. A client that comes, or comes back after a pause, starts level with the one that has been given least, so that
its absence is not saved up. Among the queries of a client, new ones go first, then those that have
waited longest.

New queries also go before the paused ones of other clients, as long as their client is not more than ``head_start_s``
ahead of these: most queries end within their first slice, and somebody waits for each, but a client that opens new
ones without end must not stop the others.

Times are seconds of work.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

__all__ = ["HEAD_START_S", "FairSchedule"]

HEAD_START_S: Final = 0.05
"""How much more time than others a client may have had while its new queries still go first."""
MAX_ENTRIES: Final = 512
"""How long the heap may get before void entries are taken out of it."""
MAX_REMEMBERED: Final = 1024
"""Clients without queries whose time is remembered before those that it makes no difference for are forgotten."""

C = TypeVar("C", bound=Hashable)
Q = TypeVar("Q", bound=Hashable)


class _Client(Generic[Q]):
    """The queries of one client that could run, each in the order of their turns."""

    __slots__ = ("new", "paused", "ticket", "used_s")

    def __init__(self, used_s: float) -> None:
        self.new: dict[Q, None] = {}
        self.paused: dict[Q, None] = {}
        self.used_s = used_s
        self.ticket = 0


class FairSchedule(Generic[C, Q]):
    """The queries that could run, each of one client. One that was taken is not in it until it is put back."""

    def __init__(self, head_start_s: float = HEAD_START_S) -> None:
        self._head_start_s = head_start_s
        self._clients: dict[C, _Client[Q]] = {}
        self._heap: list[tuple[float, int, C]] = []
        self._tickets = 0
        self._level_s = 0.0
        self._used_s: dict[C, float] = {}

    def __bool__(self) -> bool:
        """Return whether any query could run."""
        return bool(self._clients)

    def add(self, client: C, query: Q) -> None:
        """Add a query that has not run yet."""
        state = self._state(client)
        state.new[query] = None
        self._enter(client, state)

    def put_back(self, client: C, query: Q) -> None:
        """Add a query that has run before; it goes behind the others of its client."""
        state = self._state(client)
        state.paused[query] = None
        self._enter(client, state)

    def take(self) -> tuple[C, Q] | None:
        """Remove and return the query whose turn it is; None if there is none. Report its time to `spent`."""
        while self._heap:
            entry = heappop(self._heap)
            if not self._is_valid(entry):
                continue  # entered again since, or gone
            client = entry[2]
            state = self._clients[client]
            queries = state.new or state.paused
            query = next(iter(queries))
            del queries[query]
            self._level_s = max(self._level_s, entry[0])  # nobody who waits has been given less
            self._enter_or_leave(client, state)
            return client, query
        return None

    def spent(self, client: C, took_s: float) -> None:
        """Charge a client for the slice that one of its queries has run."""
        state = self._clients.get(client)
        if state is None:
            self._used_s[client] = self._used_s.get(client, self._level_s) + took_s
            self._forget()
        else:
            state.used_s += took_s
            self._enter(client, state)

    def remove(self, client: C, query: Q) -> None:
        """Remove a query, if it is here."""
        state = self._clients.get(client)
        if state is not None:
            state.new.pop(query, None)
            state.paused.pop(query, None)
            self._enter_or_leave(client, state)

    def _state(self, client: C) -> _Client[Q]:
        state = self._clients.get(client)
        if state is None:
            state = self._clients[client] = _Client(max(self._used_s.pop(client, 0.0), self._level_s))
        return state

    def _enter(self, client: C, state: _Client[Q]) -> None:
        """Put a client into the heap, which makes its earlier entry void."""
        self._tickets += 1
        state.ticket = self._tickets
        rank_s = state.used_s - self._head_start_s if state.new else state.used_s
        heappush(self._heap, (rank_s, state.ticket, client))
        if len(self._heap) > MAX_ENTRIES and len(self._heap) > 4 * len(self._clients):
            self._heap = [entry for entry in self._heap if self._is_valid(entry)]
            heapify(self._heap)

    def _is_valid(self, entry: tuple[float, int, C]) -> bool:
        state = self._clients.get(entry[2])
        return state is not None and state.ticket == entry[1]

    def _enter_or_leave(self, client: C, state: _Client[Q]) -> None:
        if state.new or state.paused:
            self._enter(client, state)
            return
        del self._clients[client]
        self._used_s[client] = state.used_s
        self._forget()

    def _forget(self) -> None:
        """Forget times that make no difference any more: clients that return with them start at the level anyway."""
        if len(self._used_s) > MAX_REMEMBERED:
            kept = {client: used_s for client, used_s in self._used_s.items() if used_s > self._level_s}
            self._used_s = kept if len(kept) <= MAX_REMEMBERED // 2 else {}
