"""Counts of stored events, from the indexes alone where they decide (spec section 7, NIP-45)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from pyryrelay.nostr.events import stored_event
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.hll import Registers, offset_of
from pyryrelay.nostr.storage.sqlite.queries.entries import Tables
from pyryrelay.nostr.storage.sqlite.queries.matching import Match, Matches, Viewer
from pyryrelay.nostr.storage.sqlite.queries.merging import Meter
from pyryrelay.nostr.storage.sqlite.queries.planning import Index, Plan, plan
from pyryrelay.nostr.storage.visibility import View

__all__ = ["SqliteCounting"]

MOST_EXPIRED: Final = 1000
"""With more events that have expired and were not swept yet, events are loaded to see when they expire."""
MOST_KINDS: Final = 200
"""With more kinds than this in the store, the events of all kinds are loaded to be counted."""
PIECE: Final = 128
ROOM_BYTES: Final = 256 * 1024


class SqliteCounting:
    """A count in an SQLite store; see ``reading.Counting``. Make one with ``SqliteReader.count``."""

    def __init__(
        self,
        tables: Tables,
        filters: Sequence[Filter],
        view: View,
        snapshot: int,
        max_count: int,
        hll: bool,
        max_work: int | None,
    ) -> None:
        self.count = 0
        self.is_approximate = False
        self.done = False
        self.over_work = False
        self.hll: str | None = None
        self._max_count = max_count
        self._tables = tables
        self._meter = Meter(max_work)
        self._filters = filters
        self._viewer = Viewer(view, snapshot)
        offset = offset_of(filters[0]) if hll and len(filters) == 1 else None
        self._registers = None if offset is None else Registers(offset)
        self._all: list[Matches] | None = None

    @property
    def work(self) -> int:
        """The work units used up to now."""
        return self._meter.work

    def step(self, is_over: Callable[[], bool]) -> None:
        """Count on; see ``reading.Counting``."""
        if self.done:
            return
        with self._tables.reading():
            if self._all is None:
                self._all = self._begin()
            while self._advance(self._all, is_over):
                self._take_first(self._all)
                if is_over():
                    break
        for matches in self._all:
            matches.unload()

    def _begin(self) -> list[Matches]:
        """Choose the indexes, and find out whether they are enough."""
        view, plans = self._viewer.view, [plan(filter_, self._viewer.unseen_kinds) for filter_ in self._filters]
        expired = self._tables.expired(view.wall_s, MOST_EXPIRED)
        self._meter.work += len(expired) or 1
        can_rely = len(expired) < MOST_EXPIRED and not view.hidden_authors and self._registers is None
        found = []
        for filter_, plan_ in zip(self._filters, plans, strict=True):
            if plan_ is not None and plan_.index is Index.TIME:
                plan_ = self._by_kind(plan_)
            is_enough = can_rely and plan_ is not None and plan_.is_exact
            found.append(
                Matches(
                    self._tables, filter_, plan_, self._viewer, self._meter, frozenset(expired) if is_enough else None
                )
            )
        return found

    def _by_kind(self, by_time: Plan) -> Plan:
        """Return a plan for the same events by their kinds, which the index by time does not know."""
        kinds: list[int] = []
        kind = self._tables.next_kind(-1)
        while kind is not None and len(kinds) < MOST_KINDS:
            kinds.append(kind)
            kind = self._tables.next_kind(kind)
        self._meter.work += len(kinds) + 1
        if kind is not None:
            return by_time
        return replace(by_time, index=Index.KINDS, leading=kinds)

    def _advance(self, found: Sequence[Matches], is_over: Callable[[], bool]) -> bool:
        """Make sure that all filters that have more matches have one ready; false if the step or the count ends."""
        if self.done:
            return False
        for matches in found:
            if matches.ready or matches.is_exhausted:
                continue
            matches.advance(PIECE, ROOM_BYTES, is_over)
            if not matches.ready and not matches.is_exhausted:
                self.over_work = self.done = self._meter.is_exceeded()
                return False
        if not any(matches.ready for matches in found):
            self._end()
        return not self.done

    def _take_first(self, found: Sequence[Matches]) -> None:
        """Count the events that are certainly next."""
        if len(found) == 1:
            ready = found[0].ready
            while ready and not self.done:
                self._add(ready.popleft())
            return
        seq = min(matches.ready[0][0] for matches in found if matches.ready)[2]
        first = [matches.ready.popleft() for matches in found if matches.ready and matches.ready[0][0][2] == seq]
        self._add(first[0])

    def _add(self, match: Match) -> None:
        if self.count == self._max_count:
            self.is_approximate = True
            self._registers = None
            self._end()
            return
        self.count += 1
        if self._registers is not None:
            self._registers.add(stored_event(match[1]).pubkey)

    def _end(self) -> None:
        self.done = True
        if self._registers is not None:
            self.hll = self._registers.hex()
