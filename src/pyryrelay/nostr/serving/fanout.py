"""Live delivery: from a commit to all subscriptions that match, in turns of bounded length.

Publishers do not wait for readers: events are queued, and a turn of the reactor delivers for `TURN_S` at most. Events
of one turn that go to one subscription are sent together. Nothing is delivered that was deleted or has expired by then.

Ephemeral events are matched when they are accepted, because their publisher is told whether anybody was listening.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from pyryrelay.nostr.events import Event, EventError, expiration
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.serving.congestion import Congestion
from pyryrelay.nostr.serving.counts import Counts
from pyryrelay.nostr.serving.queries.subscription import NOT_STORED, Live, Subscription
from pyryrelay.nostr.serving.recent import RecentIds
from pyryrelay.nostr.storage.visibility import View, may_see
from pyryrelay.nostr.subscriptions import LiveIndex

TURN_S: Final = 0.005
GONE_S: Final = 5.0
"""How long it is remembered that an event is gone: longer than events wait to be delivered."""
MAX_WAITING_EVENTS: Final = 8192
"""When more wait to be delivered, nothing is read from publishers. It takes more than slow readers to get there: events
that match very many subscriptions, faster than this process can send."""
TIDIED_VALUES: Final = 2048
"""How much of what ended subscriptions leave in the index is cleared in one turn of the reactor: about a
millisecond."""
_LOOK_EVERY: Final = 32
"""After how many deliveries the clock is looked at."""
MATCH_S: Final = 0.002
_GROUPED_EVENTS: Final = 64
_GROUPED_DELIVERIES: Final = 8192
"""How long, and how much, is matched ahead to be grouped by subscription."""

_Delivery = tuple[Subscription, Sequence[Live], Sequence[bytes]]


class Fanout:
    """Delivers events to the subscriptions of an index."""

    def __init__(
        self,
        now: Callable[[], float],
        wall_s: Callable[[], int],
        call_later: Callable[[float, Callable[[], None]], object],
        counts: Counts,
        congestion: Congestion,
    ) -> None:
        self.private_kinds: frozenset[int] = frozenset()
        self.hidden_authors: frozenset[str] = frozenset()
        self._index: LiveIndex[Subscription] = LiveIndex()
        self._now = now
        self._wall_s = wall_s
        self._call_later = call_later
        self._counts = counts
        self._congestion = congestion
        self._events: deque[tuple[Live, list[Subscription] | None]] = deque()
        self._deliveries: Iterator[_Delivery] | None = None
        self._gone = RecentIds(lifetime_s=GONE_S)
        self._is_scheduled = False
        self._is_tidying = False
        self.on_behind: Callable[[bool], None] = lambda is_behind: None
        """Called when delivery begins to be behind, and when it has caught up."""
        self.on_committed: Callable[[int], None] | None = None
        """Called with the number of the last event, each time that events were committed."""
        self.last_seq = 0
        """The number of the last event that was committed. What waits for delivery up to it is not new to whoever
        subscribes from now on."""

    def __len__(self) -> int:
        """Count the open subscriptions."""
        return len(self._index)

    def add(self, subscription: Subscription, filters: Sequence[Filter]) -> None:
        """Deliver to a subscription from now on."""
        self._index.add(subscription, filters)

    def remove(self, subscription: Subscription) -> None:
        """Deliver nothing more to a subscription."""
        self._index.remove(subscription)
        self._tidy_later()

    def _tidy_later(self) -> None:
        if self._index.is_untidy and not self._is_tidying:
            self._is_tidying = True
            self._call_later(0, self._tidy)

    def _tidy(self) -> None:
        self._is_tidying = False
        self._index.tidy(TIDIED_VALUES)
        self._tidy_later()

    def committed(self, events: Iterable[tuple[Event, bytes, int]]) -> None:
        """Deliver stored events, given with their JSON and number, in this order."""
        lives = [self._live(*one) for one in events]
        self._events.extend([(live, None) for live in lives])
        if lives:
            self.last_seq = max(self.last_seq, lives[-1].seq)
            if self.on_committed is not None:
                self.on_committed(self.last_seq)
        self._schedule()

    def forget(self, removed: Iterable[str]) -> None:
        """Do not deliver events that are gone, also if they are committed by now and reported right after this."""
        now = self._now()
        for event_id in removed:
            self._gone.add(event_id, now)

    def is_gone(self, event_id: str, now: float) -> bool:
        """Tell whether an event was deleted in the last seconds."""
        return self._gone.has(event_id, now)

    def ephemeral(self, event: Event, json: bytes) -> bool:
        """Deliver an event that is not stored. Returns whether any subscription is sent it."""
        live = self._live(event, json, NOT_STORED)
        found = self._visible(live, self._index.match(event))
        if found:
            self._events.append((live, found))
            self._schedule()
        return bool(found)

    def _live(self, event: Event, json: bytes, seq: int) -> Live:
        try:
            expires_s = expiration(event) if event.tags else None
        except EventError:
            expires_s = None
        return Live(event, json, seq, event.kind in self.private_kinds, expires_s)

    def _visible(self, live: Live, found: list[Subscription]) -> list[Subscription]:
        if live.event.pubkey in self.hidden_authors:
            return []
        if not live.is_private:
            return found
        kinds, wall_s = self.private_kinds, self._wall_s()
        return [one for one in found if may_see(live.event, View(one.connection.keys, kinds, wall_s))]

    # Turns

    def _schedule(self) -> None:
        if len(self._events) > MAX_WAITING_EVENTS and not self._congestion.is_behind:
            self._congestion.is_behind = True
            self.on_behind(True)
        if not self._is_scheduled and (self._events or self._deliveries is not None):
            self._is_scheduled = True
            self._call_later(0, self._turn)

    def _turn(self) -> None:
        """Deliver for a while."""
        self._is_scheduled = False
        now = self._now
        until = now() + TURN_S
        while True:
            deliveries = self._deliveries
            if deliveries is None:
                if not self._events:
                    return
                deliveries = self._deliveries = self._next()
                if self._congestion.is_behind and len(self._events) <= MAX_WAITING_EVENTS // 2:
                    self._congestion.is_behind = False
                    self.on_behind(False)
                    self._congestion.wake()
            countdown = _LOOK_EVERY
            for subscription, lives, jsons in deliveries:
                self._deliver(subscription, lives, jsons)
                countdown -= 1
                if not countdown:
                    break
            else:
                self._deliveries = None
            if now() >= until:
                self._schedule()
                return

    def _next(self) -> Iterator[_Delivery]:
        """Match the next events, and group them by subscription."""
        wall_s, now = self._wall_s(), self._now()
        until = now + MATCH_S
        grouped: list[tuple[Live, list[Subscription]]] = []
        size = 0
        while self._events and len(grouped) < _GROUPED_EVENTS and size < _GROUPED_DELIVERIES:
            live, found = self._events.popleft()
            if self.is_gone(live.event.id, now) or (live.expires_s is not None and live.expires_s <= wall_s):
                continue
            if found is None:
                found = self._visible(live, self._index.match(live.event))
            if found:
                size += len(found)
                grouped.append((live, found))
                if self._now() >= until:
                    break
        if len(grouped) == 1:
            return _one(*grouped[0])
        return _several(grouped)

    def _deliver(self, subscription: Subscription, lives: Sequence[Live], jsons: Sequence[bytes]) -> None:
        if not subscription.is_open:
            return
        if subscription.held is not None:
            subscription.hold(lives)
            return
        snapshot = subscription.snapshot
        if len(lives) > 1 or lives[0].seq <= snapshot:
            jsons = [live.json for live in lives if live.seq > snapshot]
            if not jsons:
                return
        self._counts.fanout_deliveries += len(jsons)
        subscription.connection.outgoing.send_events(subscription, jsons)


def _one(live: Live, found: list[Subscription]) -> Iterator[_Delivery]:
    lives, jsons = [live], [live.json]
    return ((subscription, lives, jsons) for subscription in found)


def _several(grouped: list[tuple[Live, list[Subscription]]]) -> Iterator[_Delivery]:
    by_subscription: dict[Subscription, list[Live]] = {}
    for live, found in grouped:
        for subscription in found:
            by_subscription.setdefault(subscription, []).append(live)
    return ((one, lives, [live.json for live in lives]) for one, lives in by_subscription.items())
