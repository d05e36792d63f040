"""The reader's child: many queries at once, each in slices, fair by client.

A query is new, paused, or waits for credit; the first two are in the schedule, and the reader works on one at a time,
for a slice. Between slices it takes what has come: queries, credit, cancellations. A slice ends with its time or with a
chunk of rows, so cancelling takes effect within a slice. A query holds no transaction of the store between slices.

Queries end by themselves after their timeout. The time that they wait for credit does not count: that is the time of
their client. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic, time
from typing import Final

import msgspec

from pyryrelay.nostr.storage.interface import StoreError
from pyryrelay.nostr.storage.reading import Counting, ReadableStore, Scan, ScanLimits
from pyryrelay.nostr.storage.sqlite.reader import open_reader as open_store
from pyryrelay.nostr.workers.channel import Send, patiently
from pyryrelay.nostr.workers.schedule import FairSchedule
from pyryrelay.nostr.workers.wire import (
    Aborted,
    Cancel,
    Counted,
    Credit,
    Done,
    Hint,
    Open,
    Query,
    ReaderConfig,
    Ready,
    Rows,
    Snapshot,
    ToReader,
)

__all__ = ["Reader", "open_reader"]

CHUNK_BYTES: Final = 64 * 1024
NO_LIMIT: Final = 1 << 62
EXPIRY_S: Final = 1.0
"""How often queries are looked at that have waited or run too long."""

_decode = msgspec.msgpack.Decoder(ToReader).decode


class _Running:
    """One query, from its arrival to its end. ``used_s`` is the time before ``since_s`` that counts for its timeout."""

    __slots__ = ("client", "counting", "credit", "has_rows", "number", "query", "scan", "since_s", "used_s")

    def __init__(self, message: Open, now: float) -> None:
        self.number = message.number
        self.credit = message.credit if message.query.count is None else NO_LIMIT  # a count sends no rows
        self.query: Query = message.query
        self.client = message.query.client
        self.scan: Scan | None = None
        self.counting: Counting | None = None
        self.has_rows = False
        self.used_s = 0.0
        self.since_s: float | None = now

    @property
    def work(self) -> int:
        """The work units that it has cost."""
        running = self.scan or self.counting
        return 0 if running is None else running.work

    def is_late(self, now: float) -> bool:
        """Whether it has waited for its turn and run for longer than it may."""
        timeout_s = self.query.timeout_s
        return timeout_s is not None and self.since_s is not None and self.used_s + now - self.since_s > timeout_s


class Reader:
    """The queries of one reader."""

    def __init__(
        self,
        store: ReadableStore,
        config: ReaderConfig,
        send: Send,
        now: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._slice_s = config.slice_s
        self._send = send
        self._now = now
        self._wall = wall
        self._queries: dict[int, _Running] = {}
        self._schedule: FairSchedule[str, int] = FairSchedule()
        self._next_expiry_s = now() + EXPIRY_S

    def receive(self, body: bytes) -> None:
        """Take note of a query, of credit for one, of its cancellation, or of another configuration."""
        match _decode(body):
            case Open(number) as message:
                running = self._queries[number] = _Running(message, self._now())
                self._schedule.add(running.client, number)
            case Credit(number, size):
                self._add_credit(number, size)
            case Cancel(number):
                running_or_none = self._queries.pop(number, None)
                if running_or_none is not None:
                    self._schedule.remove(running_or_none.client, number)
            case ReaderConfig() as config:
                self._slice_s = config.slice_s

    def work(self) -> None:
        """Work on one query for a slice."""
        began = self._now()
        if began >= self._next_expiry_s:
            self._expire(began)
        turn = self._schedule.take()
        if turn is None:
            return
        client, number = turn
        running = self._queries[number]
        end = began + self._slice_s
        try:
            self._step(running, lambda: self._now() >= end)
        except StoreError:
            self._end(running, None, "error")
        now = self._now()
        self._schedule.spent(client, now - began)
        if number not in self._queries:
            return
        if running.credit > 0:
            self._schedule.put_back(client, number)
        elif running.since_s is not None:
            running.used_s += now - running.since_s
            running.since_s = None
            if running.scan is not None:
                running.scan.pause()

    def wait_s(self) -> float | None:
        """Return 0 if a query could run, else the time until the next look at those that take too long."""
        if self._schedule:
            return 0.0
        return EXPIRY_S if self._queries else None

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _add_credit(self, number: int, size: int) -> None:
        running = self._queries.get(number)
        if running is None:
            return
        was_waiting = running.since_s is None
        running.credit += size
        if was_waiting and running.credit > 0:
            running.since_s = self._now()
            self._schedule.put_back(running.client, number)

    def _step(self, running: _Running, is_over: Callable[[], bool]) -> None:
        if running.scan is None and running.counting is None:
            self._begin(running)
        if running.counting is not None:
            self._count(running, running.counting, is_over)
        elif running.scan is not None:
            self._scan(running, running.scan, is_over)

    def _begin(self, running: _Running) -> None:
        query = running.query
        view = replace(query.view, wall_s=int(self._wall()))
        if query.count is not None:
            limits = query.limits
            running.counting = self._store.count(
                query.filters, view, query.count.max_count, query.count.hll, limits.max_work
            )
            return
        running.scan = self._store.scan(query.filters, view, ScanLimits(*msgspec.structs.astuple(query.limits)))
        self._send(Snapshot(running.number, running.scan.snapshot))

    def _scan(self, running: _Running, scan: Scan, is_over: Callable[[], bool]) -> None:
        rows = scan.step(is_over, min(CHUNK_BYTES, running.credit))
        if rows:
            running.has_rows = True
            running.credit -= sum(map(len, rows))
            self._send(Rows(running.number, rows))
        if scan.over_work:
            if running.has_rows:
                self._end(running, "more", None)
            else:
                self._end(running, None, "expensive")
        elif scan.done:
            self._end(running, scan.hint, None)

    def _count(self, running: _Running, counting: Counting, is_over: Callable[[], bool]) -> None:
        counting.step(is_over)
        if counting.over_work:
            self._end(running, None, "expensive")
        elif counting.done:
            self._send(Counted(running.number, counting.count, counting.is_approximate, counting.hll))
            self._end(running, None, None)

    def _expire(self, now: float) -> None:
        """End the queries that take too long."""
        self._next_expiry_s = now + EXPIRY_S
        late = [running for running in self._queries.values() if running.is_late(now)]
        for running in late:
            self._schedule.remove(running.client, running.number)
            self._end(running, None, "timeout")

    def _end(self, running: _Running, hint: Hint, aborted: Aborted) -> None:
        del self._queries[running.number]
        self._send(Done(running.number, hint, running.work, aborted))


def open_reader(config: bytes, send: Send) -> Reader:
    """Open the store of a configuration, and report that the reader is ready. Raises `StoreError`."""
    message = msgspec.msgpack.decode(config, type=ReaderConfig)
    store = patiently(lambda: open_store(message.database))
    send(Ready())
    return Reader(store, message, send)
