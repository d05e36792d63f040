"""Queries of one connection: REQ, COUNT and CLOSE (spec sections 7 and 8).

A subscription is in the live index before its scan begins. Until the scan has ended, live events are held back; then
those are sent that the scan's snapshot did not have. So each event is sent once. Ephemeral events in memory are merged
into the scan's rows; they are taken when the subscription is made, and later ones are live.

At most ``--nostr-max-scans`` queries of a connection run at once, and none starts while its client is in debt with its
work quota. Those that wait start in order. Times are seconds of the monotonic clock, sizes are bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from pyryrelay.nostr.events import Event, stored_event
from pyryrelay.nostr.filters import Filter, Matcher, can_match
from pyryrelay.nostr.messages import CountMessage, ReqMessage, count, eose
from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.policies.refusal import Refused
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.outgoing import LOW_WATER_BYTES
from pyryrelay.nostr.serving.recent import Kept, limit_of
from pyryrelay.nostr.serving.relay import Member, Relay
from pyryrelay.nostr.serving.subscription import Live, Subscription
from pyryrelay.nostr.storage.visibility import View, may_see
from pyryrelay.nostr.workers.store_readers import QueryHandle
from pyryrelay.nostr.workers.wire import Aborted, CountLimits, Hint, Query, QueryLimits

WINDOW_BYTES: Final = 64 * 1024
"""How much of all scans of a connection, together, may wait for it or be on its way to there, at first."""
MOST_WINDOW_BYTES: Final = 256 * 1024
"""The same of a connection that has taken twice as much, which is more than what the kernel takes from anyone."""
LEAST_BYTES: Final = 4 * 1024
"""What a scan may send at least once its client reads, also if others may send the rest of the window."""
CANCELLED_UNITS_PER_S: Final = 50_000
"""What a cancelled query is charged, since it does not tell what it has cost."""
UNLIMITED: Final = 1 << 62
_ID: Final = slice(len('{"id":"'), len('{"id":"') + 64)
"""Where the id is in a canonical event."""

_ABORTED: Final = {
    "expensive": refusal.TOO_EXPENSIVE(),
    "timeout": refusal.TOO_LONG(),
    "error": refusal.NOT_READ(),
}
_TOO_LONG: Final = refusal.TOO_LONG()
_SHUTTING_DOWN: Final = refusal.SHUTTING_DOWN()


class _Running:
    """A query that waits or runs: what REQ and COUNT have in common."""

    __slots__ = (
        "asked_s",
        "filters",
        "handle",
        "has_answered",
        "has_started",
        "id",
        "id_json",
        "querying",
        "started_s",
        "timeout_s",
    )

    def __init__(self, querying: Querying, message: ReqMessage | CountMessage) -> None:
        self.querying = querying
        self.id = message.id
        self.id_json = message.id_json
        self.filters: Sequence[Filter] = message.filters
        self.asked_s = querying.relay.now()
        self.started_s = self.asked_s
        self.has_answered = False
        self.has_started = False
        self.timeout_s: float | None = None
        self.handle: QueryHandle | None = None

    def start(self, timeout_s: float | None) -> None:
        """Take note that the query's turn has come."""
        self.has_started = True
        self.timeout_s = timeout_s

    def open(self, credit: int) -> None:
        """Give the query to a reader."""
        query = self.querying.query(self)
        self.filters = ()
        self.started_s = self.querying.relay.now()
        self.handle = self.querying.relay.store.readers.open(query, self, credit)

    def count_limits(self) -> CountLimits | None:
        """Return the limits of a COUNT, None for a REQ."""
        return None

    def refuse(self, refused: Refused) -> None:
        """Tell the client why it gets no answer."""
        raise NotImplementedError

    # See `pyryrelay.nostr.workers.store_readers.QueryListener`.

    def snapshot(self, seq: int) -> None:
        """The query has begun."""

    def rows(self, rows: Sequence[bytes]) -> None:
        """The query has found events."""

    def counted(self, number: int, is_approximate: bool, hll: str | None) -> None:
        """The query has counted events."""

    def done(self, hint: Hint, work: int, aborted: Aborted) -> None:
        """The query has ended."""
        self.handle = None
        self.querying.ended(self, work, aborted)
        if aborted is not None:
            self.refuse(_ABORTED[aborted])
        else:
            self.finish(hint)
        self.querying.start_waiting()

    def finish(self, hint: Hint) -> None:
        """The query has ended at its end."""


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


class Scan(_Running):
    """The scan of a subscription. ``credit`` is what it may still send; no reader knows it before its first credit."""

    __slots__ = ("_ephemerals", "_is_cut", "_shares", "credit", "is_complete", "subscription")

    def __init__(self, querying: Querying, message: ReqMessage, subscription: Subscription) -> None:
        super().__init__(querying, message)
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
        self.querying.count_sent(size)
        removals = self.querying.relay.removals
        if removals:
            rows = [row for row in rows if not removals.has(row[_ID].decode(), self.started_s)]
        if self._shares:
            rows = self._merged(rows)
        self.querying.note_first(self)
        if rows:
            self.querying.connection.outgoing.send_events(self.subscription, rows)
        self.querying.refill()

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
        subscription, connection = self.subscription, self.querying.connection
        self.querying.note_first(self)
        last = [kept.json for kept in self._ephemerals if self._take(kept.event)]
        if last:
            connection.outgoing.send_events(subscription, last)
        if self._is_cut:
            hint = "more"
        elif hint == "finish" and not self.is_complete:
            hint = None
        connection.outgoing.send([eose(self.id_json, hint)], subscription)
        relay = self.querying.relay
        wall_s = relay.wall_s()
        held = [live.json for live in subscription.settle() if not self._is_over(live, wall_s)]
        if held:
            relay.counts.fanout_deliveries += len(held)
            connection.outgoing.send_events(subscription, held)

    def _is_over(self, live: Live, wall_s: int) -> bool:
        """Tell whether an event was removed since the query was asked, or has expired."""
        if self.querying.relay.removals.has(live.event.id, self.asked_s):
            return True
        return live.expires_s is not None and live.expires_s <= wall_s

    def refuse(self, refused: Refused) -> None:
        """Close the subscription."""
        self.querying.close_with(self.id, refused)


class Counting(_Running):
    """A COUNT. ``ephemerals`` is how many events in memory match besides the stored ones."""

    __slots__ = ("_answer", "_hll", "ephemerals")

    def __init__(self, querying: Querying, message: CountMessage) -> None:
        super().__init__(querying, message)
        options = querying.relay.options
        self._hll = options.nostr_hll and len(message.filters) == 1 and bool(message.filters[0].tags)
        self._answer: tuple[int, bool, str | None] = (0, False, None)
        self.ephemerals = 0

    def count_limits(self) -> CountLimits:
        """See `_Running`."""
        limit = self.querying.relay.options.nostr_max_count
        return CountLimits(max_count=UNLIMITED if limit is None else limit, hll=self._hll)

    def counted(self, number: int, is_approximate: bool, hll: str | None) -> None:
        """Remember the result."""
        self._answer = number + self.ephemerals, is_approximate, hll

    def finish(self, hint: Hint) -> None:
        """Send the result."""
        self.querying.note_first(self)
        self.querying.connection.reply([count(self.id_json, *self._answer)])

    def refuse(self, refused: Refused) -> None:
        """Close the count."""
        querying = self.querying
        querying.connection.reply(querying.relay.refuse_query(querying.connection, self.id_json, refused))


class Querying:
    """The subscriptions and queries of one connection. ``member`` is that connection among the relay's."""

    __slots__ = (
        "_counts",
        "_member",
        "_running",
        "_scans",
        "_sent_bytes",
        "_waiting",
        "connection",
        "relay",
        "subscriptions",
    )

    def __init__(self, relay: Relay, connection: Connection, member: Member) -> None:
        self.relay = relay
        self.connection = connection
        self._member = member
        self.subscriptions: dict[str, Subscription] = {}
        self._scans: dict[str, Scan] | None = None
        self._counts: dict[str, Counting] | None = None
        self._running = 0
        self._sent_bytes = 0
        self._waiting: deque[_Running] | None = None

    # REQ

    def req(self, message: ReqMessage) -> None:
        """Open a subscription, or refuse it. One of the same id ends without a word."""
        self._end(message.id)
        relay, connection = self.relay, self.connection
        refused = self._refused(message)
        if refused is not None:
            connection.reply(relay.refuse_query(connection, message.id_json, refused))
            self.start_waiting()
            return
        subscription = self.subscriptions[message.id] = Subscription(connection, message.id_json)
        subscription.snapshot = relay.fanout.last_seq
        relay.fanout.add(subscription, message.filters)
        possible = [one for one in message.filters if can_match(one)]
        scanned = tuple(one for one in possible if one.limit != 0)
        # Nobody looks for what a limit of 0 leaves out.
        is_complete = len(scanned) == len(possible)
        if not scanned:
            connection.outgoing.send([eose(message.id_json, "finish" if is_complete else None)], subscription)
            return
        subscription.held = []
        scan = Scan(self, message, subscription)
        scan.filters = scanned
        scan.is_complete = is_complete
        if relay.ephemerals.size:
            most = _or_unlimited(relay.options.nostr_max_limit)
            usual = _or_unlimited(relay.options.nostr_default_limit)
            scan.take_ephemerals(self._ephemerals(scanned, most, usual), most, usual)
        if self._scans is None:
            self._scans = {}
        self._scans[message.id] = scan
        self._enqueue(scan)

    def _refused(self, message: ReqMessage) -> Refused | None:
        relay, connection = self.relay, self.connection
        if relay.is_draining:
            return _SHUTTING_DOWN
        refused = relay.rules.filters.check(message.filters, connection.context(relay.wall_s())) or self._over_cap()
        if refused is not None:
            return refused
        client = connection.client
        refused = relay.quotas.hold_subscription(client)
        if refused is None and not connection.is_exempt:
            refused = relay.quotas.spend_filters(client, len(message.filters), connection.quotas, relay.now())
            if refused is not None:
                relay.quotas.release_subscription(client)
        return refused

    def _ephemerals(self, filters: Sequence[Filter], max_limit: int, default_limit: int) -> list[Kept]:
        """Return the ephemeral events in memory that this connection may see, and charge the search."""
        relay, view = self.relay, self._view()
        found, work = relay.ephemerals.matching(
            filters, max_limit, default_limit, relay.now(), lambda one: may_see(one, view)
        )
        self._charge(work)
        return found

    # COUNT

    def count(self, message: CountMessage) -> None:
        """Count events, or refuse to. A COUNT of the same id ends without a word."""
        relay, connection = self.relay, self.connection
        self._end_count(message.id)
        refused = self._count_refused(message)
        if refused is not None:
            connection.reply(relay.refuse_query(connection, message.id_json, refused))
            self.start_waiting()
            return
        counting = Counting(self, message)
        if relay.ephemerals.size:
            filters = [replace(one, limit=None) for one in message.filters]
            counting.ephemerals = len(self._ephemerals(filters, UNLIMITED, UNLIMITED))
        if self._counts is None:
            self._counts = {}
        self._counts[message.id] = counting
        self._enqueue(counting)

    def _count_refused(self, message: CountMessage) -> Refused | None:
        relay, connection = self.relay, self.connection
        if relay.is_draining:
            return _SHUTTING_DOWN
        if relay.options.nostr_max_count == 0:
            return refusal.NO_COUNT()
        refused = relay.rules.filters.check(message.filters, connection.context(relay.wall_s()), is_count=True)
        refused = refused or self._over_cap()
        if refused is None and not connection.is_exempt:
            refused = relay.quotas.spend_count(connection.client, relay.now())
        return refused

    def _over_cap(self) -> Refused | None:
        """Refuse one more subscription or COUNT if the connection has as many as it may have."""
        limit = self.relay.options.nostr_max_subscriptions
        if limit is None or len(self.subscriptions) + len(self._counts or ()) < limit:
            return None
        return refusal.TOO_MANY_SUBSCRIPTIONS(limit)

    # CLOSE

    def close(self, id_: str) -> None:
        """End a subscription and a COUNT of this id, if there are such, without a word."""
        self._end(id_)
        self._end_count(id_)
        self.start_waiting()

    def close_subscription(self, id_: str) -> None:
        """End a subscription without a word."""
        self._end(id_)
        self.start_waiting()

    def close_with(self, id_: str, refused: Refused) -> None:
        """End a subscription, and tell the client why."""
        subscription = self.subscriptions.get(id_)
        if subscription is not None:
            self._end(id_)
            self.connection.reply(self.relay.refuse_query(self.connection, subscription.id_json, refused))

    def leave(self) -> None:
        """End everything: the connection is over."""
        self.relay.counts.queries_waiting -= len(self._waiting or ())
        self._waiting = None
        for id_ in list(self.subscriptions):
            self._end(id_)
        for id_ in list(self._counts or ()):
            self._end_count(id_)
        self.relay.waiting.pop(self._member, None)

    def drain(self) -> None:
        """End everything, and say that the relay is shutting down."""
        for id_ in list(self.subscriptions):
            self.close_with(id_, _SHUTTING_DOWN)
        for id_, counting in list((self._counts or {}).items()):
            self._end_count(id_)
            counting.refuse(_SHUTTING_DOWN)

    def _end(self, id_: str) -> None:
        subscription = self.subscriptions.pop(id_, None)
        if subscription is None:
            return
        self.relay.fanout.remove(subscription)
        self.relay.quotas.release_subscription(self.connection.client)
        scan = None if self._scans is None else self._scans.pop(id_, None)
        if scan is not None:
            self._cancel(scan)
        subscription.end()

    def _end_count(self, id_: str) -> None:
        counting = None if self._counts is None else self._counts.pop(id_, None)
        if counting is not None:
            self._cancel(counting)

    def _cancel(self, query: _Running) -> None:
        counts = self.relay.counts
        if query.has_started:
            if query.handle is not None:
                query.handle.cancel()
                query.handle = None
                self._charge(int((self.relay.now() - query.started_s) * CANCELLED_UNITS_PER_S))
            self._left(query)
            counts.query_aborted["cancelled"] += 1
        elif self._waiting is not None and query in self._waiting:
            self._waiting.remove(query)
            counts.queries_waiting -= 1

    # Turns

    def _enqueue(self, query: _Running) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(query)
        self.relay.counts.queries_waiting += 1
        self.start_waiting()

    def start_waiting(self) -> None:
        """Start the queries whose turn it is."""
        waiting, relay = self._waiting, self.relay
        limit = relay.options.nostr_max_scans
        now = relay.now()
        while waiting and (limit is None or self._running < limit):
            if not self.connection.is_exempt and relay.quotas.work_wait_s(self.connection.client, now) > 0:
                break
            relay.counts.queries_waiting -= 1
            self._start(waiting.popleft(), now)
        if waiting:
            relay.waiting[self._member] = None
        else:
            self._waiting = None
            relay.waiting.pop(self._member, None)

    def tick(self, now: float) -> None:
        """Close what has waited for too long, and start what need not wait any more."""
        timeout_s = self.relay.options.nostr_query_timeout_s
        while timeout_s is not None and self._waiting and now - self._waiting[0].asked_s >= timeout_s:
            query = self._waiting[0]
            self.relay.counts.query_aborted["timeout"] += 1
            if isinstance(query, Counting):
                self._end_count(query.id)
            query.refuse(_TOO_LONG)
        self.start_waiting()

    def _start(self, query: _Running, now: float) -> None:
        timeout_s = self.relay.options.nostr_query_timeout_s
        self._running += 1
        self.relay.counts.queries_running += 1
        query.start(None if timeout_s is None else max(0.0, timeout_s - (now - query.asked_s)))
        if isinstance(query, Scan):
            self.refill()
        else:
            query.open(1)  # it sends no rows, but its reader is busy with it

    def query(self, running: _Running) -> Query:
        """Return what a reader is told of a query."""
        options, client = self.relay.options, self.connection.client
        return Query(
            client="" if client is None else str(client.key),
            filters=tuple(running.filters),
            view=self._view(),
            limits=QueryLimits(
                max_limit=_or_unlimited(options.nostr_max_limit),
                default_limit=_or_unlimited(options.nostr_default_limit),
                max_results=options.nostr_max_results,
                max_work=options.nostr_max_query_work,
            ),
            timeout_s=running.timeout_s,
            count=running.count_limits(),
        )

    def _view(self) -> View:
        options = self.relay.options
        return View(self.connection.keys, options.nostr_private_kinds, self.relay.wall_s(), self.relay.rules.hidden)

    def count_sent(self, size: int) -> None:
        """Take note of what scans have sent, by which the window grows."""
        self._sent_bytes += size

    def refill(self) -> None:
        """Let scans go on if the client reads, or once it does.

        The scan that was asked for first may send three quarters of what the window has room for, the next one three
        quarters of the rest, and so on. So one that finds nothing for long does not stop the others.
        """
        outgoing = self.connection.outgoing
        if outgoing.is_closed or not self._scans:
            return
        unread_bytes = outgoing.unread_bytes
        if unread_bytes >= LOW_WATER_BYTES:
            outgoing.on_low = self.refill
            return
        scans = [scan for scan in self._scans.values() if scan.has_started]
        window = max(WINDOW_BYTES, min(self._sent_bytes // 2, MOST_WINDOW_BYTES))
        room = window - unread_bytes - sum(scan.credit for scan in scans)
        for scan in scans:
            share = max((room + scan.credit) * 3 // 4, LEAST_BYTES)
            if scan.credit <= share // 2:
                room -= share - scan.credit
                scan.add_credit(share - scan.credit)

    def note_first(self, query: _Running) -> None:
        """Measure the time to the first event of a query, or to its end without one."""
        if not query.has_answered:
            self.relay.counts.query_first_s.observe(self.relay.now() - query.asked_s)
            query.has_answered = True

    def ended(self, query: _Running, work: int, aborted: Aborted) -> None:
        """Take note that a query is over, and charge it."""
        relay = self.relay
        self._left(query)
        (self._scans if isinstance(query, Scan) else self._counts or {}).pop(query.id, None)  # type: ignore[union-attr]
        counts = relay.counts
        counts.query_work_units += work
        counts.query_whole_s.observe(relay.now() - query.asked_s)
        if aborted is not None:
            counts.query_aborted[aborted] += 1
        self._charge(work)

    def _charge(self, work: int) -> None:
        if work and not self.connection.is_exempt:
            self.relay.quotas.spend_work(self.connection.client, work, self.relay.now())

    def _left(self, query: _Running) -> None:
        self._running -= 1
        self.relay.counts.queries_running -= 1


def _or_unlimited(limit: int | None) -> int:
    return UNLIMITED if limit is None else limit
