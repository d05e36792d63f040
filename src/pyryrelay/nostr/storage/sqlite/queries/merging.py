"""The entries of one filter's plan, merged from all its ranges in the order of answers.

Each range is read in small pieces: an author of thousands who wrote nothing lately costs one look at the index. A
statement reads pieces of several ranges. What was read is certain up to the first entry behind which a range has more;
then that range is read on, together with others that will be needed. A merge holds entries, never a statement or a
transaction, so that it can rest between two steps of a query.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final, TypeAlias

from pyryrelay.nostr.storage.sqlite.queries.entries import MOST_RANGES, Entry, Tables
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
MOST_KINDS: Final = 32
"""How many kinds of an author are looked up at once."""


class Meter:
    """The work units that a query has used, and may use."""

    __slots__ = ("limit", "work")

    def __init__(self, limit: int | None) -> None:
        self.work = 0
        self.limit = limit

    def is_exceeded(self) -> bool:
        """Tell whether more was used than allowed."""
        return self.limit is not None and self.work > self.limit


class _Range:
    """A range of which there is more to read, behind the entry ``last``. ``count`` entries were read at once."""

    __slots__ = ("count", "key", "last")

    def __init__(self, key: Key, last: Entry, count: int) -> None:
        self.key = key
        self.last = last
        self.count = count


_last_of = attrgetter("last")


class _Merger:
    """The ranges of an index, and what was read of them. ``is_at_end`` tells that nothing is left to read."""

    __slots__ = ("_index", "_meter", "_plan", "_pool", "_tables", "_unread")

    def __init__(self, tables: Tables, plan: Plan, meter: Meter) -> None:
        self._tables = tables
        self._plan = plan
        self._index = Index.AUTHORS_KINDS if plan.index is Index.AUTHORS else plan.index
        self._meter = meter
        self._pool: list[Entry] = []  # what was not taken
        self._unread: list[_Range] = []

    @property
    def is_at_end(self) -> bool:
        """Whether all ranges were read."""
        return not self._unread

    def begin(self, keys: Sequence[Key], count: int, after: Place | None) -> Iterator[None]:
        """Read ``count`` entries of each range. Yield after each statement."""
        tables, plan, index = self._tables, self._plan, self._index
        size = max(min(MOST // count, MOST_RANGES), 1)
        for start in range(0, len(keys), size):
            some = keys[start : start + size]
            if after is None:
                pieces = tables.first(index, some, plan.until, plan.since, count)
            else:
                pieces = tables.after(index, [(key, after, count) for key in some], plan.since)
            for key, piece in zip(some, pieces, strict=True):
                self._add(key, piece, count)
            yield None

    def take(self) -> list[Entry]:
        """Return the next entries: those before all that were not read."""
        pool, unread = self._pool, self._unread
        # Both consist of few runs that are in order.
        pool.sort()
        unread.sort(key=_last_of)
        known = bisect_right(pool, unread[0].last) if unread else len(pool)
        taken = pool[:known]
        del pool[:known]
        return taken

    def read_on(self, wanted: int) -> None:
        """Read on in the range that is needed next, and in those that the next ``wanted`` entries need too."""
        unread, pool = self._unread, self._pool
        bound = pool[wanted - 1] if len(pool) >= wanted else None
        reads: list[tuple[Key, Place, int]] = []
        size = 0
        for one in unread[:MOST_RANGES]:
            count = min(one.count * GROWTH, MOST)
            size += count
            if reads and (size > MOST or (bound is not None and one.last > bound)):
                break
            reads.append((one.key, (-one.last[0], one.last[1]), count))
        del unread[: len(reads)]
        pieces = self._tables.after(self._index, reads, self._plan.since)
        for (key, _, count), piece in zip(reads, pieces, strict=True):
            self._add(key, piece, count)

    def _add(self, key: Key, piece: list[Entry], count: int) -> None:
        self._meter.work += len(piece) or 1
        self._pool += piece
        if len(piece) == count:
            self._unread.append(_Range(key, piece[-1], count))


def merge(tables: Tables, plan: Plan, wanted: int, after: Place | None, meter: Meter) -> Iterator[Entry | None]:
    """Yield the entries of a plan, each once, in order; None after each statement: the caller may rest then.

    Args:
        wanted: how many entries will probably be taken, which decides how many are read at once.
        after: where to begin, instead of at the newest.
    """
    if plan.index is Index.IDS:
        yield from _by_id(tables, plan, after, meter)
        return
    keys: list[Key] = []
    for key in _keys(tables, plan, meter):
        if key is None:
            yield None
        else:
            keys.append(key)
    count = min(max(2 * wanted // max(len(keys), 1), FEWEST), MOST) if len(keys) > 1 else min(wanted, FIRST)
    merger = _Merger(tables, plan, meter)
    yield from merger.begin(keys, count, after)
    last = None
    while True:
        taken = merger.take()
        for entry in taken:
            if entry != last:
                yield entry
                last = entry
        if merger.is_at_end:
            return
        wanted = wanted - len(taken) if wanted > len(taken) else FIRST
        merger.read_on(wanted)
        yield None


def _keys(tables: Tables, plan: Plan, meter: Meter) -> Iterator[Key | None]:
    """Yield the keys of the ranges, with the kinds that authors have; None after each statement."""
    if plan.index is not Index.AUTHORS:
        yield from plan.ranges()
        return
    for author in plan.leading:
        kinds = [-1]
        while kinds:
            kinds = tables.kinds_of(author, kinds[-1], MOST_KINDS)
            meter.work += len(kinds)
            yield None
            for kind in kinds:
                if kind not in plan.unseen_kinds and (plan.kinds is None or kind in plan.kinds):
                    yield author, kind
            if len(kinds) < MOST_KINDS:
                break
        meter.work += 1


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
