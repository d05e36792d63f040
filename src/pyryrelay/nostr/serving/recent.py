"""PURE: what the relay remembers of the latest events: their ids, and ephemeral events that are still served.

Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final, NamedTuple

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter, Matcher
from pyryrelay.nostr.kinds import KindClass, class_of

MAX_IDS: Final = 20_000
"""How many ids of a kind are remembered: about 2 MB."""
MAX_REMOVALS: Final = 100_000
"""How many removals are remembered for the queries that run."""
EPHEMERAL_S: Final = 600.0
"""How long an ephemeral event counts as seen (spec section 4, step 11)."""


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
    """Ephemeral events in memory for REQ (``--nostr-ephemeral-lifetime``, ``--nostr-ephemeral-bytes``)."""

    __slots__ = ("_kept", "lifetime_s", "max_bytes", "size")

    def __init__(self) -> None:
        """Start without a lifetime: nothing is kept."""
        self.lifetime_s = 0.0
        self.max_bytes = 0
        self._kept: deque[Kept] = deque()
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
        if self.lifetime_s > 0:
            self._kept.append(Kept(event, json, now + self.lifetime_s))
            self.size += len(json)
            self._shrink()

    def sweep(self, now: float) -> None:
        """Forget events that are over."""
        while self._kept and self._kept[0].until_s <= now:
            self._forget()

    def _shrink(self) -> None:
        while self.size > self.max_bytes:
            self._forget()

    def _forget(self) -> None:
        self.size -= len(self._kept.popleft().json)

    def matching(
        self,
        filters: Sequence[Filter],
        max_limit: int,
        default_limit: int,
        now: float,
        shows: Callable[[Event], bool] = lambda _: True,
    ) -> list[Kept]:
        """Return what the filters match, of what ``shows`` allows, newest first: of each up to one over its limit.

        The one over the limit tells that there is more. It costs a look at each event for each filter, unless the
        filter names no ephemeral kind.
        """
        found: dict[str, Kept] = {}
        for one in filters:
            limit = limit_of(one, max_limit, default_limit)
            if limit > 0 and may_match_ephemerals(one):
                match = Matcher.of(one)
                matched = [
                    kept for kept in self._kept if kept.until_s > now and match(kept.event) and shows(kept.event)
                ]
                found.update((kept.event.id, kept) for kept in sorted(matched, key=_order)[: limit + 1])
        return sorted(found.values(), key=_order)


def limit_of(one: Filter, max_limit: int, default_limit: int) -> int:
    """Return how many events a filter yields at most."""
    return min(default_limit if one.limit is None else one.limit, max_limit)


def may_match_ephemerals(one: Filter) -> bool:
    """Tell whether a filter names an ephemeral kind, or no kinds at all."""
    return one.kinds is None or any(class_of(kind) is KindClass.EPHEMERAL for kind in one.kinds)


def _order(kept: Kept) -> tuple[int, str]:
    """Order as answers are: newest first, then by the smaller id (spec section 6)."""
    return -kept.event.created_at, kept.event.id
