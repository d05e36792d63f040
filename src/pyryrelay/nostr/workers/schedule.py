"""Whose query a reader works on next: young queries first, and fair by client. PURE.

Each query runs in short slices, and is young until it has run for `YOUNG_S`. Most queries end before that, and somebody
waits for each, so young ones go before the others, and first of all those of clients who have only one. But while
others wait, those that go first get no more than three quarters of the time, apart from a head start. So clients that
open new queries without end do not stop the others.

Among queries of the same rank, the client that has been given the least time for such queries is next, however many it
has. A client that comes, or comes back after a pause, starts level with the one that has been given least, so that its
absence is not saved up. The queries of a client take turns.

Times are seconds of work.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

__all__ = ["HEAD_START_S", "YOUNG_S", "FairSchedule"]

YOUNG_S: Final = 0.002
"""How long a query is young."""
PREFERENCE: Final = 3
"""How many times as much as those that wait the queries may have that go before them."""
HEAD_START_S: Final = 0.05
"""How much more time than those that wait the queries may have had that still go before them."""
MAX_ENTRIES: Final = 512
"""How long a heap may get before void entries are taken out of it."""
MAX_REMEMBERED: Final = 1024
"""Clients without queries whose time is remembered before those that it makes no difference for are forgotten."""

C = TypeVar("C", bound=Hashable)
Q = TypeVar("Q", bound=Hashable)


class _Client(Generic[Q]):
    """The queries of one client that could run, in the order of their turns."""

    __slots__ = ("queries", "ticket", "used_s")

    def __init__(self, used_s: float) -> None:
        self.queries: dict[Q, None] = {}
        self.used_s = used_s
        self.ticket = 0


class _Turns(Generic[C, Q]):
    """Queries that are alike, and whose clients are treated alike."""

    def __init__(self) -> None:
        self._clients: dict[C, _Client[Q]] = {}
        self._heap: list[tuple[float, int, C]] = []
        self._tickets = 0
        self._level_s = 0.0
        self._used_s: dict[C, float] = {}

    def __bool__(self) -> bool:
        return bool(self._clients)

    def add(self, client: C, query: Q) -> None:
        state = self._clients.get(client)
        if state is None:
            state = self._clients[client] = _Client(max(self._used_s.pop(client, 0.0), self._level_s))
        state.queries[query] = None
        self._enter(client, state)

    def take(self) -> tuple[C, Q] | None:
        while self._heap:
            entry = heappop(self._heap)
            if not self._is_valid(entry):
                continue  # entered again since, or gone
            client = entry[2]
            state = self._clients[client]
            query = next(iter(state.queries))
            del state.queries[query]
            self._level_s = max(self._level_s, entry[0])  # nobody who waits has been given less
            self._enter_or_leave(client, state)
            return client, query
        return None

    def spent(self, client: C, took_s: float) -> None:
        state = self._clients.get(client)
        if state is None:
            self._used_s[client] = self._used_s.get(client, self._level_s) + took_s
            self._forget()
        else:
            state.used_s += took_s
            self._enter(client, state)

    def remove(self, client: C, query: Q) -> None:
        state = self._clients.get(client)
        if state is not None and query in state.queries:
            del state.queries[query]
            self._enter_or_leave(client, state)

    def _enter(self, client: C, state: _Client[Q]) -> None:
        """Put a client into the heap, which makes its earlier entry void."""
        self._tickets += 1
        state.ticket = self._tickets
        heappush(self._heap, (state.used_s, state.ticket, client))
        if len(self._heap) > MAX_ENTRIES and len(self._heap) > 4 * len(self._clients):
            self._heap = [entry for entry in self._heap if self._is_valid(entry)]
            heapify(self._heap)

    def _is_valid(self, entry: tuple[float, int, C]) -> bool:
        state = self._clients.get(entry[2])
        return state is not None and state.ticket == entry[1]

    def _enter_or_leave(self, client: C, state: _Client[Q]) -> None:
        if state.queries:
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


class FairSchedule(Generic[C, Q]):
    """The queries that could run, each of one client. One that was taken is not in it until it is put back."""

    def __init__(self, head_start_s: float = HEAD_START_S) -> None:
        self._head_start_s = head_start_s
        self._ranks: tuple[_Turns[C, Q], ...] = (_Turns(), _Turns(), _Turns())
        """The young queries that are the only ones of their clients, the other young ones, and the others."""
        self._leads_s = [0.0, 0.0]
        """How much more time the queries of a rank have been given than is theirs before those of later ranks go on.

        Only what is given while these wait counts, and one part of it in `PREFERENCE`.
        """
        self._taken = 0
        """The rank of the query that was taken last."""

    def __bool__(self) -> bool:
        """Return whether any query could run."""
        return any(self._ranks)

    def add(self, client: C, query: Q, *, is_only: bool) -> None:
        """Add a query that has not run yet. ``is_only`` says that its client has no other."""
        self.put_back(client, query, 0.0, is_only=is_only)

    def put_back(self, client: C, query: Q, ran_s: float, *, is_only: bool) -> None:
        """Add a query that has run before, for ``ran_s`` altogether; it goes behind the others of its client."""
        rank = 2 if ran_s >= YOUNG_S else 0 if is_only else 1
        self._ranks[rank].add(client, query)

    def take(self) -> tuple[C, Q] | None:
        """Remove and return the query whose turn it is; None if there is none. Then report its time to `spent`."""
        self._taken = self._next_rank()
        return self._ranks[self._taken].take()

    def is_urgent(self) -> bool:
        """Return whether the query taken last goes before all others: a young one, the only one of its client."""
        return self._taken == 0

    def is_outranked(self, took_s: float = 0.0) -> bool:
        """Return whether a query waits that goes before the one that was taken last, which has run for so long since.

        It does not matter whose queries these are.
        """
        most_s = self._head_start_s + took_s
        return any(self._ranks[rank] and self._leads_s[rank] <= most_s for rank in range(self._taken))

    def spent(self, client: C, took_s: float) -> None:
        """Charge a client for the slice that the query has run that was taken last."""
        taken, leads_s = self._taken, self._leads_s
        self._ranks[taken].spent(client, took_s)
        for rank in range(min(taken, len(leads_s))):
            leads_s[rank] = max(0.0, leads_s[rank] - took_s)
        if taken < len(leads_s):
            leads_s[taken] = leads_s[taken] + took_s / PREFERENCE if any(self._ranks[taken + 1 :]) else 0.0

    def remove(self, client: C, query: Q) -> None:
        """Remove a query, if it is here."""
        for turns in self._ranks:
            turns.remove(client, query)

    def _next_rank(self) -> int:
        """Return the first rank that is not too far ahead of those behind it; the last if nothing waits."""
        found = [rank for rank, turns in enumerate(self._ranks) if turns]
        for rank in found[:-1]:
            if self._leads_s[rank] <= self._head_start_s:
                return rank
        return found[-1] if found else len(self._ranks) - 1
