"""The readers' client: each query goes to the reader with the least to do, and is followed by a handle.

While a client has queries that run, one reader is kept free of it if there are several: its other queries go where it
has some already. So one client's many expensive queries leave a reader, and a processor, to the others. That does not
hold for those whose address is unknown, who may be many.

A query sends rows as long as it has credit, so that a client that does not read makes it pause where it is. All
callbacks are called in a later turn of the reactor than the call that caused them, and none after `QueryHandle.cancel`.
A reader ends queries by itself after their timeout. One that hangs does not, so its queries are watched here, too, and
it is replaced. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredList

from pyryrelay.nostr.workers.wire import (
    Aborted,
    Cancel,
    Counted,
    Credit,
    Done,
    FromReader,
    Hint,
    Open,
    Query,
    ReaderConfig,
    Rows,
    Snapshot,
    encode,
)
from pyryrelay.nostr.workers.worker_process import ChildServices, Watch, WorkerProcess

__all__ = ["CREDIT_BYTES", "QueryHandle", "QueryListener", "StoreReaders"]

CREDIT_BYTES: Final = 128 * 1024
"""How much a query may send before somebody has taken any of it."""
GRACE_S: Final = 2.0
"""How much later than its reader should have ended it a query is ended here."""

_decode = msgspec.msgpack.Decoder(FromReader).decode


class QueryListener(Protocol):
    """What is told about one query, in this order: the snapshot, rows or a count, the end."""

    def snapshot(self, seq: int) -> None:
        """The query sees what was committed up to the event with this number, and nothing later."""

    def rows(self, rows: Sequence[bytes]) -> None:
        """Here are the next events in order, as they are stored, at most about 64 KiB unless a single one is larger."""

    def counted(self, count: int, is_approximate: bool, hll: str | None) -> None:
        """This is the result of a COUNT."""

    def done(self, hint: Hint, work: int, aborted: Aborted) -> None:
        """The query has ended after ``work`` units; why, if not at its end. Without a snapshot before, it never began.

        A query over its work that has sent rows has not been aborted, but has the hint ``more``.
        """


class QueryHandle:
    """One query that is running or waits for its turn."""

    __slots__ = ("_client", "_credit", "_limit_s", "_listener", "_number", "_reader", "_since_s")

    def __init__(
        self,
        reader: _Reader,
        number: int,
        credit: int,
        listener: QueryListener,
        timeout_s: float | None = None,
        client: str = "",
    ) -> None:
        self._reader: _Reader | None = reader
        self._number = number
        self._credit = credit
        self._listener = listener
        self._client = client
        self._limit_s = None if timeout_s is None else timeout_s + GRACE_S
        self._since_s = reader.now()

    @property
    def is_open(self) -> bool:
        """Whether the query has neither ended nor been cancelled."""
        return self._reader is not None

    def more(self, size: int) -> None:
        """Let the query send so much more. Does nothing after its end."""
        if self._reader is not None and size > 0:
            self._add_credit(size)
            self._reader.process.send(encode(Credit(self._number, size)))

    def cancel(self) -> None:
        """End the query; the listener is told nothing more. Does nothing after its end."""
        reader = self._reader
        if reader is not None:
            self._leave()
            reader.process.send(encode(Cancel(self._number)))
            if self._limit_s is not None:
                reader.cancelled[self._number] = (reader.now(), self._limit_s)

    def _is_late(self, now: float) -> bool:
        return self._limit_s is not None and self._credit > 0 and now - self._since_s >= self._limit_s

    def _received(self, message: Snapshot | Rows | Counted | Done) -> None:
        match message:
            case Rows(_, rows):
                self._add_credit(-sum(map(len, rows)))
                self._listener.rows(rows)
            case Snapshot(_, seq):
                self._listener.snapshot(seq)
            case Counted(_, count, is_approximate, hll):
                self._listener.counted(count, is_approximate, hll)
            case Done(_, hint, work, aborted):
                self._leave()
                self._listener.done(hint, work, aborted)

    def _fail(self, now: float) -> None:
        if self._reader is not None:
            self._leave()
            self._listener.done(None, 0, "timeout" if self._is_late(now) else "error")

    def _add_credit(self, size: int) -> None:
        reader, had_credit = self._reader, self._credit > 0
        self._credit += size
        if reader is not None:
            if (self._credit > 0) != had_credit:
                reader.count(self._client, 1 if self._credit > 0 else -1)
            if not had_credit:
                self._since_s = reader.now()

    def _leave(self) -> None:
        if self._reader is not None:
            del self._reader.queries[self._number]
            if self._credit > 0:
                self._reader.count(self._client, -1)
            self._reader = None


class _Reader:
    """One reader's process and the queries that it has. ``busy`` is the number of those that have credit.

    ``clients`` is how many of those each client has, of clients that are known.
    ``cancelled`` has the queries whose end it has not confirmed, with the time since when it should have, and that by
    when. ``heard_s`` is when it last sent anything.
    """

    def __init__(self, services: ChildServices, config: ReaderConfig) -> None:
        self.process = WorkerProcess(services, "reader", config, self)
        self.queries: dict[int, QueryHandle] = {}
        self.cancelled: dict[int, tuple[float, float]] = {}
        self.busy = 0
        self.clients: Counter[str] = Counter()
        self.now = services.now
        self.heard_s = services.now()
        self.gone: Deferred[None] = Deferred()

    def count(self, client: str, difference: int) -> None:
        """Count queries with credit."""
        self.busy += difference
        if client:
            self.clients[client] += difference
            if not self.clients[client]:
                del self.clients[client]

    def started(self) -> None:
        """See `pyryrelay.nostr.workers.worker_process.Client`. There is nothing to send before the first query."""

    def received(self, body: bytes) -> None:
        self.heard_s = self.now()
        message = _decode(body)
        if isinstance(message, Done):
            self.cancelled.pop(message.number, None)
        if isinstance(message, Snapshot | Rows | Counted | Done):
            query = self.queries.get(message.number)
            if query is not None:  # it may have been cancelled meanwhile
                query._received(message)

    def lost(self, delay_s: float) -> None:
        now = self.now()
        for query in list(self.queries.values()):
            query._fail(now)
        self.cancelled.clear()

    def watch(self, now: float) -> None:
        """End queries that take too long, and replace the process if it has not answered meanwhile."""
        late = [query for query in self.queries.values() if query._is_late(now)]
        owed = [(query._since_s, query._limit_s or 0.0) for query in late] + list(self.cancelled.values())
        is_hanging = any(now - max(since_s, self.heard_s) >= limit_s for since_s, limit_s in owed)
        if is_hanging:
            self.process.replace("it did not answer")
            return
        for query in late:
            if query.is_open:
                query.cancel()
                query._listener.done(None, 0, "timeout")

    def ended(self) -> None:
        self.lost(0)
        self.gone.callback(None)


class StoreReaders:
    """The processes that answer queries. Nothing is done before `start`, and queries fail before it."""

    def __init__(self, services: ChildServices, config: ReaderConfig, number: int) -> None:
        self._services = services
        self._readers = [_Reader(services, config) for _ in range(number)]
        self._number = 0
        self._watch = Watch(services, self._look)

    @property
    def queries(self) -> int:
        """Number of queries that run or wait."""
        return sum(len(reader.queries) for reader in self._readers)

    @property
    def is_available(self) -> bool:
        """Whether queries can be run now, or in the next turn of the reactor."""
        return any(reader.process.is_available for reader in self._readers)

    def start(self) -> None:
        """Start the readers' processes; the store must exist."""
        for reader in self._readers:
            reader.process.start()
        self._watch.start()

    def configure(self, config: ReaderConfig) -> None:
        """Change the length of slices. Another database only takes effect with the next processes."""
        for reader in self._readers:
            reader.process.configure(config)

    def open(self, query: Query, listener: QueryListener, credit: int = CREDIT_BYTES) -> QueryHandle:
        """Start a query, which may send ``credit`` bytes of rows before it waits for `QueryHandle.more`.

        If no reader is running, ``listener.done`` is called with the error.
        """
        self._number += 1
        running = [reader for reader in self._readers if reader.process.is_running]
        if not running:
            return self._refuse(listener)
        its_own = [reader for reader in running if query.client in reader.clients]
        if its_own and len(its_own) >= len(running) - 1:
            running = its_own
        reader = min(running, key=lambda reader: reader.busy)
        handle = QueryHandle(reader, self._number, credit, listener, query.timeout_s, query.client)
        reader.queries[self._number] = handle
        if credit > 0:
            reader.count(query.client, 1)
        reader.process.send(encode(Open(self._number, credit, query)))
        return handle

    def close(self) -> Deferred[None]:
        """End all processes; queries that run end with an error. The Deferred fires when the processes have ended."""
        self._watch.stop()
        for reader in self._readers:
            reader.process.close()
        return DeferredList([reader.gone for reader in self._readers]).addCallback(lambda results: None)

    def _look(self, now: float) -> None:
        for reader in self._readers:
            reader.watch(now)

    def _refuse(self, listener: QueryListener) -> QueryHandle:
        absent = self._readers[0]
        handle = QueryHandle(absent, self._number, 0, listener)
        absent.queries[self._number] = handle

        def refuse() -> None:
            if handle.is_open:
                handle._received(Done(self._number, None, 0, "error"))

        self._services.call_later(0, refuse)
        return handle
