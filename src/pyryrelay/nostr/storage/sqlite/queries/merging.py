"""The entries of one filter's plan, merged from all its ranges in the order of answers.

Each range is read by a cursor in small pieces: an author of thousands who wrote nothing lately costs one look at the
index. Cursors hold entries, never a statement or a transaction, so that a merge can rest between two steps of a query.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, TypeAlias

from pyryrelay.nostr.storage.sqlite.queries.entries import Entry, Tables
from pyryrelay.nostr.storage.sqlite.queries.planning import Index, Key, Plan

__all__ = ["Meter", "Place", "merge"]

Place: TypeAlias = tuple[int, bytes]
"""A time and an id: what comes after them in the order of answers is still to be read."""

FEWEST: Final = 3
FIRST: Final = 64
"""How many entries of the only range are read at first: a scan may have to rest before it needs more."""
MOST: Final = 512
"""How many entries a statement reads, which bounds the time that one takes."""
GROWTH: Final = 4


class Meter:
    """The work units that a query has used, and may use."""

    __slots__ = ("limit", "work")

    def __init__(self, limit: int | None) -> None:
        self.work = 0
        self.limit = limit

    def is_exceeded(self) -> bool:
        """Tell whether more was used than allowed."""
        return self.limit is not None and self.work > self.limit


class _Cursor:
    """A range of an index, read in pieces. ``piece`` is the last one, and ``next`` the entry in it to return next."""

    __slots__ = ("count", "index", "key", "next", "piece", "since")

    def __init__(self, index: Index, key: Key, since: int, count: int, piece: list[Entry]) -> None:
        self.index = index
        self.key = key
        self.since = since
        self.count = count
        self.piece = piece
        self.next = 1

    def read_on(self, tables: Tables, meter: Meter) -> None:
        """Read the next piece. It is empty at the end of the range."""
        piece = self.piece
        self.piece, self.next = [], 0
        if len(piece) == self.count:
            self.count = min(self.count * GROWTH, MOST)
            newest, event_id, _, _ = piece[-1]
            self.piece = tables.after(self.index, self.key, (-newest, event_id), self.since, self.count)
            meter.work += len(self.piece) or 1


def merge(tables: Tables, plan: Plan, wanted: int, after: Place | None, meter: Meter) -> Iterator[Entry | None]:
    """Yield the entries of a plan, each once, in order; None after each statement: the caller may rest then.

    Args:
        wanted: how many entries will probably be taken, which decides how many are read at once.
        after: where to begin, instead of at the newest.
    """
    if plan.index is Index.IDS:
        yield from _by_id(tables, plan, after, meter)
        return
    index = Index.AUTHORS_KINDS if plan.index is Index.AUTHORS else plan.index
    heap: list[tuple[Entry, int, _Cursor]] = []
    keys: list[Key] = []
    for key in _keys(tables, plan, meter):
        if key is None:
            yield None
        else:
            keys.append(key)
    count = min(max(2 * wanted // max(len(keys), 1), FEWEST), MOST) if len(keys) > 1 else min(wanted, FIRST)
    for number, key in enumerate(keys):
        if after is None:
            piece = tables.first(index, key, plan.until, plan.since, count)
        else:
            piece = tables.after(index, key, after, plan.since, count)
        meter.work += len(piece) or 1
        if piece:
            heap.append((piece[0], number, _Cursor(index, key, plan.since, count, piece)))
        yield None
    if len(heap) == 1:
        yield from _alone(heap[0][2], tables, meter)
        return
    heapq.heapify(heap)
    last = None
    while heap:
        entry, number, cursor = heap[0]
        if entry != last:
            yield entry
            last = entry
        if cursor.next == len(cursor.piece):
            cursor.read_on(tables, meter)
            yield None
        if cursor.piece:
            heapq.heapreplace(heap, (cursor.piece[cursor.next], number, cursor))
            cursor.next += 1
        else:
            heapq.heappop(heap)


def _alone(cursor: _Cursor, tables: Tables, meter: Meter) -> Iterator[Entry | None]:
    """Yield the entries of the only cursor there is."""
    while cursor.piece:
        yield from cursor.piece
        cursor.read_on(tables, meter)
        yield None


def _keys(tables: Tables, plan: Plan, meter: Meter) -> Iterator[Key | None]:
    """Yield the keys of the ranges, with the kinds that authors have; None after each statement."""
    if plan.index is not Index.AUTHORS:
        yield from plan.ranges()
        return
    for author in plan.leading:
        kind = -1
        while (next_kind := tables.next_kind(kind, author)) is not None:
            kind = next_kind
            meter.work += 1
            yield None
            if kind not in plan.unseen_kinds and (plan.kinds is None or kind in plan.kinds):
                yield author, kind
        meter.work += 1
        yield None


def _by_id(tables: Tables, plan: Plan, after: Place | None, meter: Meter) -> Iterator[Entry | None]:
    """Yield the entries of ids, which have to be sorted."""
    entries: list[Entry] = []
    for event_id in plan.leading:
        entries += tables.by_id(event_id)
        meter.work += 1
        yield None
    begin = (-plan.until, b"") if after is None else (-after[0], after[1])
    for entry in sorted(entries):
        if entry[:2] > begin and -entry[0] >= plan.since:
            yield entry
