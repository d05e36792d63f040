"""The scan of a subscription: the stored events that match, and the ephemeral ones in memory, in order.

Ephemeral events in memory are merged into the scan's rows; they are taken when the subscription is made, and later ones
are live. Sizes are bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from pyryrelay.nostr.events import Event, stored_event
from pyryrelay.nostr.filters import Filter, Matcher
from pyryrelay.nostr.messages import ReqMessage, eose
from pyryrelay.nostr.policies.refusal import Refused
from pyryrelay.nostr.serving.queries.running import Queries, RunningQuery
from pyryrelay.nostr.serving.queries.subscription import Live, Subscription
from pyryrelay.nostr.serving.recent import Kept, limit_of
from pyryrelay.nostr.workers.wire import Hint

_ID: Final = slice(len('{"id":"'), len('{"id":"') + 64)
"""Where the id is in a canonical event."""


class _Share:
    """What one filter may still yield where stored events and ephemeral ones come together."""

    __slots__ = ("_left", "_matcher")

    def __init__(self, one: Filter, limit: int) -> None:
        self._matcher = Matcher.of(one)
        self._left = limit

    def take(self, event: Event) -> bool:
        """Tell whether the filter yields an event, the next one in order."""
        is_taken = self._left > 0 and self._matcher(event)
        self._left -= is_taken
        return is_taken


class Scan(RunningQuery):
    """The scan of a subscription. ``credit`` is what it may still send; no reader knows it before its first credit."""

    __slots__ = ("_ephemerals", "_is_cut", "_shares", "credit", "is_complete", "subscription")

    def __init__(self, queries: Queries, message: ReqMessage, subscription: Subscription) -> None:
        super().__init__(queries, message)
        self.subscription = subscription
        self.credit = 0
        self._ephemerals: deque[Kept] = deque()
        self._shares: list[_Share] = []
        self._is_cut = False
        self.is_complete = True
        """Whether every filter that can match is scanned."""

    def add_credit(self, size: int) -> None:
        """Let the scan send so much more."""
        self.credit += size
        if self.handle is None:
            self.open(self.credit)
        else:
            self.handle.more(size)

    def take_ephemerals(self, kept: Sequence[Kept], max_limit: int, default_limit: int) -> None:
        """Send these along with the rows, in order. Stored or not, each filter yields no more than its limit."""
        if kept:
            self._ephemerals.extend(kept)
            self._shares = [_Share(one, limit_of(one, max_limit, default_limit)) for one in self.filters]

    def snapshot(self, seq: int) -> None:
        """Deliver live what is committed later."""
        self.subscription.snapshot = seq

    def rows(self, rows: Sequence[bytes]) -> None:
        """Send events, and let the scan go on if the client reads."""
        size = sum(map(len, rows))
        self.credit -= size
        self.queries.count_sent(size)
        removals = self.queries.relay.removals
        if removals:
            rows = [row for row in rows if not removals.has(row[_ID].decode(), self.started_s)]
        if self._shares:
            rows = self._merged(rows)
        self.queries.note_first(self)
        if rows:
            self.queries.connection.outgoing.send_events(self.subscription, rows)
        self.queries.refill()

    def _merged(self, rows: Sequence[bytes]) -> list[bytes]:
        merged: list[bytes] = []
        waiting = self._ephemerals
        for row in rows:
            event = stored_event(row)
            while waiting and (-waiting[0].event.created_at, waiting[0].event.id) < (-event.created_at, event.id):
                kept = waiting.popleft()
                if self._take(kept.event):
                    merged.append(kept.json)
            if self._take(event):
                merged.append(row)
        return merged

    def _take(self, event: Event) -> bool:
        """Tell whether a filter that matches the next event has not reached its limit."""
        is_wanted = False
        for share in self._shares:
            is_wanted |= share.take(event)
        self._is_cut |= not is_wanted
        return is_wanted

    def finish(self, hint: Hint) -> None:
        """Send EOSE, and behind it what was held back meanwhile."""
        subscription, connection = self.subscription, self.queries.connection
        self.queries.note_first(self)
        last = [kept.json for kept in self._ephemerals if self._take(kept.event)]
        if last:
            connection.outgoing.send_events(subscription, last)
        if self._is_cut:
            hint = "more"
        elif hint == "finish" and not self.is_complete:
            hint = None
        connection.outgoing.send([eose(self.id_json, hint)], subscription)
        relay = self.queries.relay
        wall_s = relay.wall_s()
        held = [live.json for live in subscription.settle() if not self._is_over(live, wall_s)]
        if held:
            relay.counts.fanout_deliveries += len(held)
            connection.outgoing.send_events(subscription, held)

    def _is_over(self, live: Live, wall_s: int) -> bool:
        """Tell whether an event was removed since the query was asked, or has expired."""
        if self.queries.relay.removals.has(live.event.id, self.asked_s):
            return True
        return live.expires_s is not None and live.expires_s <= wall_s

    def refuse(self, refused: Refused) -> None:
        """Close the subscription."""
        self.queries.close_with(self.id, refused)
