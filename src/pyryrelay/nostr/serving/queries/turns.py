"""The turns of one connection's queries: which of them run, and how much their scans may send.

At most ``--nostr-max-scans`` queries of a connection run at once, and none starts while its client is in debt with its
work quota. Those that wait start in order. Times are seconds of the monotonic clock, sizes are bytes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.outgoing import LOW_WATER_BYTES
from pyryrelay.nostr.serving.queries.counting import Counting
from pyryrelay.nostr.serving.queries.running import RunningQuery, or_unlimited
from pyryrelay.nostr.serving.queries.scan import Scan
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.nostr.serving.surroundings import Member
from pyryrelay.nostr.storage.visibility import View
from pyryrelay.nostr.workers.wire import Aborted, Query, QueryLimits

WINDOW_BYTES: Final = 64 * 1024
"""How much of all scans of a connection, together, may wait for it or be on its way to there, at first."""
MOST_WINDOW_BYTES: Final = 256 * 1024
"""The same of a connection that has taken twice as much, which is more than what the kernel takes from anyone."""
LEAST_BYTES: Final = 4 * 1024
"""What a scan may send at least once its client reads, also if others may send the rest of the window."""
CANCELLED_UNITS_PER_S: Final = 50_000
"""What a cancelled query is charged, since it does not tell what it has cost."""

_TOO_LONG: Final = refusal.TOO_LONG()


class Turns:
    """The queries of one connection that wait or run. ``member`` is that connection among the relay's."""

    __slots__ = ("_counts", "_member", "_running", "_scans", "_sent_bytes", "_waiting", "connection", "relay")

    def __init__(self, relay: Relay, connection: Connection, member: Member) -> None:
        self.relay = relay
        self.connection = connection
        self._member = member
        self._scans: dict[str, Scan] | None = None
        self._counts: dict[str, Counting] | None = None
        self._running = 0
        self._sent_bytes = 0
        self._waiting: deque[RunningQuery] | None = None

    def enqueue(self, query: RunningQuery) -> None:
        """Start a query in its turn."""
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
            if not self.connection.is_exempt and relay.quotas.queries.work_wait_s(self.connection.client, now) > 0:
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
                self.end_count(query.id)
            query.refuse(_TOO_LONG)
        self.start_waiting()

    def _start(self, query: RunningQuery, now: float) -> None:
        timeout_s = self.relay.options.nostr_query_timeout_s
        self._running += 1
        self.relay.counts.queries_running += 1
        query.start(None if timeout_s is None else max(0.0, timeout_s - (now - query.asked_s)))
        if isinstance(query, Scan):
            self.refill()
        else:
            query.open(1)  # it sends no rows, but its reader is busy with it

    def query(self, running: RunningQuery) -> Query:
        """Return what a reader is told of a query."""
        options, client = self.relay.options, self.connection.client
        return Query(
            client="" if client is None else str(client.key),
            filters=tuple(running.filters),
            view=self._view(),
            limits=QueryLimits(
                max_limit=or_unlimited(options.nostr_max_limit),
                default_limit=or_unlimited(options.nostr_default_limit),
                max_results=options.nostr_max_results,
                max_work=options.nostr_max_query_work,
                max_seq=running.max_seq,
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

    def note_first(self, query: RunningQuery) -> None:
        """Measure the time to the first event of a query, or to its end without one."""
        if not query.has_answered:
            self.relay.counts.query_first_s.observe(self.relay.now() - query.asked_s)
            query.has_answered = True

    def ended(self, query: RunningQuery, work: int, aborted: Aborted) -> None:
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
            self.relay.quotas.queries.spend_work(self.connection.client, work, self.relay.now())

    def _left(self, query: RunningQuery) -> None:
        self._running -= 1
        self.relay.counts.queries_running -= 1

    def cancel(self, query: RunningQuery) -> None:
        """End a query without a word, whether it runs or waits."""
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

    def end_count(self, id_: str) -> None:
        """End a COUNT without a word."""
        counting = None if self._counts is None else self._counts.pop(id_, None)
        if counting is not None:
            self.cancel(counting)
