"""PURE: what the relay remembers of the latest events: their ids, and ephemeral events that are still served.

Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from heapq import merge
from itertools import islice
from math import inf
from typing import Final, NamedTuple

from pyryrelay.nostr.events import Event, indexed_tags
from pyryrelay.nostr.filters import Filter, Matcher

MAX_IDS: Final = 20_000
"""How many ids of a kind are remembered: about 2 MB."""
MAX_REMOVALS: Final = 100_000
"""How many removals are remembered for the queries that run."""
EPHEMERAL_S: Final = 600.0
"""How long an ephemeral event counts as seen (spec section 4, step 11)."""
MAX_EXAMINED: Final = 2000
"""How many ephemeral events one message may look at: 1 to 2 ms."""
MAX_SWEPT: Final = 1000
"""How many ephemeral events are forgotten at a stretch."""
SWEPT_BY_ADD: Final = 2
"""How many of them each new event sweeps: more than come, so that what is over does not pile up."""
TAG_BYTES: Final = 256
"""What an indexed tag takes besides its text."""

_ID_BITS: Final = 256
_EVERYTHING: Final = (("", ("",)),)
"""The field and the value under which every event is entered."""
_KEYS_WITHOUT_TAGS: Final = 4
_Key = tuple[str, str | int]


class RecentIds:
    """The ids that were added last, at most ``max_ids`` of them, and none for longer than ``lifetime_s``."""

    __slots__ = ("_ids", "_lifetime_s", "_max_ids")

    def __init__(self, max_ids: int = MAX_IDS, lifetime_s: float = inf) -> None:
        self._max_ids = max_ids
        self._lifetime_s = lifetime_s
        self._ids: dict[str, float] = {}

    def __len__(self) -> int:
        """Count the ids that take memory."""
        return len(self._ids)

    def has(self, event_id: str, now: float) -> bool:
        """Tell whether an id was added lately."""
        added_at_s = self._ids.get(event_id)
        return added_at_s is not None and now - added_at_s < self._lifetime_s

    def added_s(self, event_id: str) -> float | None:
        """Return when an id was added last; None if it is not remembered."""
        return self._ids.get(event_id)

    def add(self, event_id: str, now: float) -> None:
        """Remember an id, and forget the oldest one if there is no room."""
        ids = self._ids
        if event_id not in ids and len(ids) >= self._max_ids:
            del ids[next(iter(ids))]
        ids[event_id] = now

    def discard(self, event_ids: Iterable[str]) -> None:
        """Forget ids of events that are gone."""
        for event_id in event_ids:
            self._ids.pop(event_id, None)

    def clear(self) -> None:
        """Forget all ids."""
        self._ids.clear()


class Removals:
    """When events were removed while queries ran, in one place for all queries; at most ``max_ids`` of them."""

    __slots__ = ("_ids",)

    def __init__(self, max_ids: int = MAX_REMOVALS) -> None:
        self._ids = RecentIds(max_ids)

    def __len__(self) -> int:
        """Count the ids that take memory."""
        return len(self._ids)

    def add(self, event_ids: Iterable[str], now: float) -> None:
        """Note that events were removed."""
        for event_id in event_ids:
            self._ids.add(event_id, now)

    def has(self, event_id: str, began_s: float) -> bool:
        """Tell whether an event was removed since a query began."""
        removed_s = self._ids.added_s(event_id)
        return removed_s is not None and removed_s >= began_s

    def clear(self) -> None:
        """Forget all: no query runs."""
        self._ids.clear()


class Kept(NamedTuple):
    """An ephemeral event that is still served."""

    event: Event
    json: bytes
    until_s: float


class Ephemerals:
    """Ephemeral events in memory for REQ (``--nostr-ephemeral-lifetime``, ``--nostr-ephemeral-bytes``).

    Each event is entered under all that a filter can name. An event's rank is one integer that orders events as answers
    are ordered, the first of them with the greatest rank. ``size`` is in bytes, that of indexed tags included.
    """

    __slots__ = ("_index", "_kept", "lifetime_s", "max_bytes", "size")

    def __init__(self) -> None:
        """Start without a lifetime: nothing is kept."""
        self.lifetime_s = 0.0
        self.max_bytes = 0
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._index: dict[_Key, list[int]] = {}
        self.size = 0

    def __len__(self) -> int:
        """Count the events that take memory."""
        return len(self._kept)

    def configure(self, lifetime_s: float, max_bytes: int) -> None:
        """Keep later events for so long, and never more bytes than that."""
        self.lifetime_s, self.max_bytes = lifetime_s, max_bytes
        self._shrink()

    def add(self, event: Event, json: bytes, now: float) -> None:
        """Keep an event, and forget the oldest ones if there is no room. Does nothing without a lifetime."""
        if self.lifetime_s <= 0:
            return
        self._sweep(now, SWEPT_BY_ADD)
        rank = _rank(event)
        if rank in self._kept:
            self._kept.move_to_end(rank, last=False)
            self._forget()
        kept = self._kept[rank] = Kept(event, json, now + self.lifetime_s)
        keys = _keys(event)
        for key in keys:
            insort(self._index.setdefault(key, []), rank)
        self.size += _size(kept, keys)
        self._shrink()

    def sweep(self, now: float) -> None:
        """Forget events that are over, at most `MAX_SWEPT` of them; those that remain are not served either."""
        self._sweep(now, MAX_SWEPT)

    def _sweep(self, now: float, most: int) -> None:
        while most and self._kept and next(iter(self._kept.values())).until_s <= now:
            self._forget()
            most -= 1

    def _shrink(self) -> None:
        while self.size > self.max_bytes:
            self._forget()

    def _forget(self) -> None:
        rank, kept = self._kept.popitem(last=False)
        keys = _keys(kept.event)
        for key in keys:
            ranks = self._index[key]
            del ranks[bisect_left(ranks, rank)]
            if not ranks:
                del self._index[key]
        self.size -= _size(kept, keys)

    def matching(
        self,
        filters: Sequence[Filter],
        max_limit: int,
        default_limit: int,
        now: float,
        shows: Callable[[Event], bool] = lambda _: True,
    ) -> tuple[list[Kept], int]:
        """Return what the filters match, of what ``shows`` allows, newest first, and the work it was.

        Of each filter there is up to one over its limit, which tells that there is more. The work is the number of
        events that were looked at, at most `MAX_EXAMINED`. Where that does not suffice, the result is the newest part
        of each filter. Filters with few candidates are searched first, and leave what they do not need to the others.
        """
        limits = [limit_of(one, max_limit, default_limit) for one in filters]
        found, work, _ = self._search_all(zip(filters, limits, strict=True), now, shows)
        return [self._kept[rank] for rank in sorted(found, reverse=True)], work

    def count(
        self, filters: Sequence[Filter], now: float, shows: Callable[[Event], bool] = lambda _: True
    ) -> tuple[int, int, bool]:
        """Return how many events match, whatever the limits, the work it was, and whether all of them were counted."""
        found, work, is_whole = self._search_all(((one, len(self._kept)) for one in filters), now, shows)
        return len(found), work, is_whole

    def _search_all(
        self, filters: Iterable[tuple[Filter, int]], now: float, shows: Callable[[Event], bool]
    ) -> tuple[set[int], int, bool]:
        """Return what filters find, each up to one over its limit, the work, and whether that sufficed for all."""
        found: set[int] = set()
        searches = sorted(
            ((one, limit, self._candidates(one)) for one, limit in filters), key=lambda search: _total(search[2])
        )
        left, is_whole = MAX_EXAMINED, True
        for done, (one, limit, runs) in enumerate(searches):
            if limit > 0 and runs:
                most = left // (len(searches) - done)
                examined, has_ended = self._search(one, runs, limit + 1, most, now, shows, found)
                left -= examined
                is_whole &= has_ended
        return found, MAX_EXAMINED - left, is_whole

    def _candidates(self, one: Filter) -> list[list[int]]:
        """Return the ranks of the events that a filter may match, by its rarest field."""
        index = self._index
        fields = (("ids", one.ids), ("authors", one.authors), ("kinds", one.kinds), *one.tags, *_EVERYTHING)
        return min(
            (
                [ranks for value in values if (ranks := index.get((field, value))) is not None]
                for field, values in fields
                if values is not None
            ),
            key=_total,
        )

    def _search(
        self,
        one: Filter,
        runs: Sequence[list[int]],
        limit: int,
        most: int,
        now: float,
        shows: Callable[[Event], bool],
        found: set[int],
    ) -> tuple[int, bool]:
        """Add the newest matches to the found ones. Return how many events were looked at, and if these are enough."""
        matcher = Matcher.of(one)
        first, end = matcher.since << _ID_BITS, (matcher.until + 1) << _ID_BITS
        places = [range(bisect_left(ranks, end) - 1, bisect_left(ranks, first) - 1, -1) for ranks in runs]
        newest_first = [map(ranks.__getitem__, run) for ranks, run in zip(runs, places, strict=True)]
        examined, last = 0, -1
        for rank in islice(newest_first[0] if len(runs) == 1 else merge(*newest_first, reverse=True), most):
            examined += 1
            kept = self._kept[rank]
            if rank != last and kept.until_s > now and matcher(kept.event) and shows(kept.event):
                found.add(rank)
                limit -= 1
                if not limit:
                    break
            last = rank
        return examined, not limit or examined == _total(places)


def limit_of(one: Filter, max_limit: int, default_limit: int) -> int:
    """Return how many events a filter yields at most."""
    return min(default_limit if one.limit is None else one.limit, max_limit)


def _rank(event: Event) -> int:
    """Return a number that is greater for a newer event, then for a smaller id (spec section 6)."""
    return ((event.created_at + 1) << _ID_BITS) - 1 - int(event.id, 16)


def _keys(event: Event) -> set[_Key]:
    """Return what an event is entered under: pairs of a filter's field, or the letter of a tag, and the value."""
    keys: set[_Key] = {("", ""), ("ids", event.id), ("authors", event.pubkey), ("kinds", event.kind)}
    keys.update(indexed_tags(event))
    return keys


def _size(kept: Kept, keys: set[_Key]) -> int:
    """Return what an event counts for: thousands of short tags take more memory than their text."""
    return len(kept.json) + TAG_BYTES * (len(keys) - _KEYS_WITHOUT_TAGS)


def _total(runs: Iterable[Sequence[int]]) -> int:
    return sum(map(len, runs))
