"""The reader's child: many queries at once, each in slices, fair by client.

A query is new, paused, or waits for credit; the first two are in the schedule, and the reader works on one at a time,
for a slice. A slice ends with its time, or when a query waits that goes before it, for which the reader looks several
times within a slice. How old a query is depends on the processor time that it took: one that was interrupted by the
system is not put behind others for that. A query holds no transaction of the store between slices. Only those that have
run last keep what they have read ahead, so that what a query holds does not add up over many.

Work that is not urgent is interrupted for other processes, too: for the relay's, which may have an urgent query, and
for other readers, which may answer one. What a query finds at once is sent together.

Queries end by themselves after their timeout. The time that they wait for credit does not count: that is the time of
their client. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, thread_time, time
from typing import Final

import msgspec

from pyryrelay.nostr.storage.interface import StoreError
from pyryrelay.nostr.storage.reading import Counting, ReadableStore, Scan, ScanLimits
from pyryrelay.nostr.storage.sqlite.reader import open_reader as open_store
from pyryrelay.nostr.workers.channel import GivingWay, Poll, SendTogether, nothing, patiently
from pyryrelay.nostr.workers.schedule import YOUNG_S, FairSchedule
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

CHUNK_BYTES: Final = 32 * 1024
SOON_S: Final = 0.0003
"""How long the first chunk of a query waits for the second one, since many queries end there."""
LOOK_S: Final = 0.0003
"""How often a slice is interrupted to see what has arrived."""
MOST_WAITING: Final = 3
"""How many times its processor time a slice is charged at most, and how much longer that of a young query may last.

The rest of the time the system had interrupted the reader, or it waited for the disk.
"""
MOST_WARM: Final = 8
"""How many paused queries keep what they have read ahead; the others look their place up again."""
NO_LIMIT: Final = 1 << 62
EXPIRY_S: Final = 1.0
"""How often queries are looked at that have waited or run too long."""

_decode = msgspec.msgpack.Decoder(ToReader).decode


class _Running:
    """One query, from its arrival to its end. ``used_s`` is the time before ``since_s`` that counts for its timeout.

    ``ran_s`` is the processor time that it took.
    """

    __slots__ = ("client", "counting", "credit", "number", "query", "ran_s", "rows", "scan", "since_s", "used_s")

    def __init__(self, message: Open, now: float) -> None:
        self.number = message.number
        self.credit = message.credit if message.query.count is None else NO_LIMIT  # a count sends no rows
        self.query: Query = message.query
        self.client = message.query.client
        self.scan: Scan | None = None
        self.counting: Counting | None = None
        self.rows = 0
        self.ran_s = 0.0
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
        send: SendTogether,
        now: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
        processor: Callable[[], float] = thread_time,
        give_way: Callable[[], None] = os.sched_yield,
    ) -> None:
        self._store = store
        self._slice_s = config.slice_s
        self._send = send
        self._now = now
        self._wall = wall
        self._processor = processor
        self._let_others_run = GivingWay(now, give_way)
        self._answers: list[object] = []
        self._queries: dict[int, _Running] = {}
        self._schedule: FairSchedule[str, int] = FairSchedule()
        self._next_expiry_s = now() + EXPIRY_S
        self._warm: dict[int, Scan] = {}
        self._open: Counter[str] = Counter()

    def receive(self, body: bytes) -> None:
        """Take note of a query, of credit for one, of its cancellation, or of another configuration."""
        match _decode(body):
            case Open(number) as message:
                running = self._queries[number] = _Running(message, self._now())
                self._open[running.client] += 1
                self._schedule.add(running.client, number, is_only=self._open[running.client] == 1)
            case Credit(number, size):
                self._add_credit(number, size)
            case Cancel(number):
                running_or_none = self._queries.get(number)
                if running_or_none is not None:
                    self._schedule.remove(running_or_none.client, number)
                    self._end(running_or_none, None, None)
            case ReaderConfig() as config:
                self._slice_s = config.slice_s

    def work(self, poll: Poll = nothing) -> None:
        """Work on one query for a slice, in which ``poll`` is asked for frames that arrive."""
        began = self._now()
        if began >= self._next_expiry_s:
            self._expire(began)
        turn = self._schedule.take()
        if turn is not None:
            self._work_on(turn, began, poll)
        self._flush()
        if not self._schedule.is_urgent():
            self._let_others_run()

    def _work_on(self, turn: tuple[str, int], began: float, poll: Poll) -> None:
        """Let a query go on for a slice, and charge its client."""
        client, number = turn
        running = self._queries[number]
        rows, used_s = running.rows, self._processor()
        try:
            self._run(running, self._slice(running, began, used_s, poll))
        except StoreError:
            self._end(running, None, "error")
        now = self._now()
        ran_s = self._processor() - used_s
        self._schedule.spent(client, min(now - began, MOST_WAITING * ran_s))
        running.ran_s += ran_s
        if number not in self._queries:
            return
        if running.rows > rows:
            self._keep_warm(running)
        if running.credit > 0:
            self._put_back(running)
        elif running.since_s is not None:
            running.used_s += now - running.since_s
            running.since_s = None

    def _run(self, running: _Running, is_over: Callable[[], bool]) -> None:
        """Let a query go on until it ends, waits for credit, or its slice is over."""
        is_new = not running.rows
        self._step(running, is_over)
        if is_new and running.rows and self._goes_on(running, is_over):
            end = self._now() + SOON_S
            self._step(running, lambda: is_over() or self._now() >= end)
        self._flush()
        while self._goes_on(running, is_over):
            self._step(running, is_over)
            self._flush()

    def _goes_on(self, running: _Running, is_over: Callable[[], bool]) -> bool:
        return running.number in self._queries and running.credit > 0 and not is_over()

    def _slice(self, running: _Running, began: float, used_s: float, poll: Poll) -> Callable[[], bool]:
        """Return what tells whether a slice is over that began at a time, when so much processor time was used.

        A young query does not keep others waiting once it is not young any more, and keeps its turn if the system
        interrupts it.
        """
        was_young, has_aged = running.ran_s < YOUNG_S, False
        end, next_look = began + self._slice_s, began + LOOK_S
        last = began + MOST_WAITING * self._slice_s
        young_until_s = used_s + YOUNG_S - running.ran_s
        schedule = self._schedule

        def is_over() -> bool:
            nonlocal next_look, has_aged
            now = self._now()
            if now >= next_look:
                if not schedule.is_urgent():
                    now = self._let_others_run()
                next_look = now + LOOK_S
                for body in poll():
                    self.receive(body)
                has_aged = was_young and self._processor() >= young_until_s
            if now >= end and (has_aged or not was_young or now >= last):
                return True
            if has_aged and schedule:
                return True
            return schedule.is_outranked(now - began) or running.number not in self._queries

        return is_over

    def _flush(self) -> None:
        """Send the answers together, so that the reactor's process wakes up once for them."""
        if self._answers:
            answers, self._answers = self._answers, []
            self._send(*answers)

    def _keep_warm(self, running: _Running) -> None:
        """Let the query that has kept for longest what it has read ahead forget it, if too many keep it.

        Only queries that have found something are kept count of: the others would begin again.
        """
        if running.scan is None:
            return
        self._warm.pop(running.number, None)
        self._warm[running.number] = running.scan
        if len(self._warm) > MOST_WARM:
            self._warm.pop(next(iter(self._warm))).pause()

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
            self._put_back(running)

    def _step(self, running: _Running, is_over: Callable[[], bool]) -> None:
        if running.scan is None and running.counting is None:
            self._begin(running)
        if running.counting is not None:
            self._count(running, running.counting, is_over)
        elif running.scan is not None:
            # It may have waited for its client for long.
            running.scan.look_at(int(self._wall()))
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
        self._answers.append(Snapshot(running.number, running.scan.snapshot))

    def _scan(self, running: _Running, scan: Scan, is_over: Callable[[], bool]) -> None:
        rows = scan.step(is_over, min(CHUNK_BYTES, running.credit))
        if running.number not in self._queries:
            return  # it was cancelled meanwhile
        if rows:
            running.rows += len(rows)
            running.credit -= sum(map(len, rows))
            self._answers.append(Rows(running.number, rows))
        if scan.over_work:
            if running.rows:
                self._end(running, "more", None)
            else:
                self._end(running, None, "expensive")
        elif scan.done:
            self._end(running, scan.hint, None)

    def _count(self, running: _Running, counting: Counting, is_over: Callable[[], bool]) -> None:
        counting.step(is_over)
        if running.number not in self._queries:
            return
        if counting.over_work:
            self._end(running, None, "expensive")
        elif counting.done:
            self._answers.append(Counted(running.number, counting.count, counting.is_approximate, counting.hll))
            self._end(running, None, None)

    def _expire(self, now: float) -> None:
        """End the queries that take too long."""
        self._next_expiry_s = now + EXPIRY_S
        late = [running for running in self._queries.values() if running.is_late(now)]
        for running in late:
            self._schedule.remove(running.client, running.number)
            self._end(running, None, "timeout")

    def _forget(self, running: _Running) -> None:
        del self._queries[running.number]
        self._warm.pop(running.number, None)
        self._open[running.client] -= 1
        if not self._open[running.client]:
            del self._open[running.client]

    def _put_back(self, running: _Running) -> None:
        client = running.client
        self._schedule.put_back(client, running.number, running.ran_s, is_only=self._open[client] == 1)

    def _end(self, running: _Running, hint: Hint, aborted: Aborted) -> None:
        self._forget(running)
        self._answers.append(Done(running.number, hint, running.work, aborted))


def open_reader(config: bytes, send: SendTogether) -> Reader:
    """Open the store of a configuration, and report that the reader is ready. Raises `StoreError`."""
    message = msgspec.msgpack.decode(config, type=ReaderConfig)
    store = patiently(lambda: open_store(message.database))
    send(Ready())
    return Reader(store, message, send)
