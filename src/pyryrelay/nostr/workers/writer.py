"""The writer's child: the only process that changes the store.

It works in turns. Each takes all frames that have come, writes what they bring in as few transactions as batches allow,
and then does one short piece of other work: of a tool's call, of removing expired events, or of retention. So no event
waits long for that, however much there is. What writes leave to be done in the store is done when they are answered:
when it has become much, or when no event has come for a second.

After a write that failed, it tries every few seconds whether the store can be written again, and reports both. Times
are in seconds.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter, time
from typing import Final, Literal

import msgspec

from pyryrelay.nostr.storage import interface
from pyryrelay.nostr.storage.interface import Outcome, StoreError, Swept, WritableStore
from pyryrelay.nostr.storage.sqlite import store as sqlite
from pyryrelay.nostr.workers.channel import Poll, Send, nothing, problem
from pyryrelay.nostr.workers.wire import (
    Answer,
    Call,
    Health,
    Ready,
    Removed,
    ToWriter,
    Write,
    WriterConfig,
    Written,
)

__all__ = ["Writer", "open_writer"]

MAX_BATCH_WEIGHT: Final = 1_000
MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
PIECE_S: Final = 0.010
"""How long events may have to wait for other work."""
SWEEP_S: Final = 30.0
RETENTION_S: Final = 600.0
PROBE_S: Final = 5.0
IDLE_S: Final = 1.0
"""After so long without an event, the store is left tidy."""


class _Deletion(msgspec.Struct):
    """The arguments of the call ``delete``."""

    ids: list[bytes]
    forever: bool


class _Since(msgspec.Struct):
    """The arguments of the call ``since``: at least one event is returned, whatever its size, if there is one."""

    seq: int
    most: int
    max_bytes: int


class _Positions(msgspec.Struct):
    """The arguments of the call ``keep_positions``."""

    positions: dict[str, str]


class _Check(msgspec.Struct):
    """The arguments of the call ``check``."""

    budget_s: float | None = None


_decode = msgspec.msgpack.Decoder(ToWriter).decode


class Writer:
    """The store's writer, and what waits for it."""

    def __init__(
        self,
        store: WritableStore,
        config: WriterConfig,
        send: Send,
        now: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._retention = config.retention
        self._send = send
        self._now = now
        self._wall = wall
        self._writes: deque[Write] = deque()
        self._calls: deque[Call] = deque()
        self._next_sweep_s = now()
        self._next_retention_s = now()
        self._next_probe_s: float | None = None
        self._next_tidy_s: float | None = None

    def receive(self, body: bytes) -> None:
        """Take note of events, of a call, or of other rules."""
        self.take(_decode(body))

    def take(self, message: ToWriter) -> None:
        """Take note of a message; see `receive`."""
        match message:
            case Write() as write:
                self._writes.append(write)
            case Call() as call:
                self._calls.append(call)
            case WriterConfig() as config:
                self._retention = config.retention

    def work(self, poll: Poll = nothing) -> None:
        """Write what waits, then do one piece of other work."""
        while self._writes:
            self._write(self._take_batch())
            self._tend()
        if self._calls:
            self._answer(self._calls.popleft())
            return
        now = self._now()
        try:
            if self._next_probe_s is not None:
                self._probe(now)
            elif self._next_tidy_s is not None and now >= self._next_tidy_s:
                self._store.tend(is_idle=True)
                self._next_tidy_s = None
            elif now >= self._next_sweep_s:
                swept = self._store.sweep(int(self._wall()), PIECE_S)
                self._next_sweep_s = self._after(swept, "expired", SWEEP_S)
            elif now >= self._next_retention_s:
                swept = self._store.retain(self._retention, int(self._wall()), PIECE_S)
                self._next_retention_s = self._after(swept, "retention", RETENTION_S)
        except StoreError as error:
            self._failed(error)

    def wait_s(self) -> float | None:
        """Return the time until other work is due."""
        if self._calls:
            return 0.0
        due_s = self._next_probe_s or min(self._next_sweep_s, self._next_retention_s, self._next_tidy_s or math.inf)
        return max(0.0, due_s - self._now())

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    # Writing

    def _take_batch(self) -> list[Write]:
        """Take what waits, up to the size of a batch, but at least one frame."""
        batch: list[Write] = []
        weight = size = 0
        while self._writes:
            weight += max(self._writes[0].weight, len(self._writes[0].events))
            size += sum(map(len, self._writes[0].events))
            if batch and (weight > MAX_BATCH_WEIGHT or size > MAX_BATCH_BYTES):
                break
            batch.append(self._writes.popleft())
        return batch

    def _write(self, batch: Sequence[Write]) -> None:
        events = batch[0].events if len(batch) == 1 else [event for write in batch for event in write.events]
        began = perf_counter()
        try:
            written = self._written(events)
        except StoreError as error:
            self._failed(error)  # first, so that whoever is refused finds /healthz saying why
            for write in batch:
                self._send(Written(write.number, [], []))
            return
        took_s = perf_counter() - began
        start = 0
        for write in batch:
            end = start + len(write.events)
            outcomes, seqs = written.outcomes[start:end], written.seqs[start:end]
            if start:
                self._send(Written(write.number, outcomes, seqs))
            else:
                self._send(Written(write.number, outcomes, seqs, written.removed, took_s, len(events)))
            start = end
        self._succeeded()

    def _written(self, events: Sequence[bytes]) -> interface.Written:
        """Write events in one transaction.

        Only if something else than the database fails, which is then our fault, each half is written by itself, so that
        a single event cannot make others fail.
        """
        try:
            return self._store.write(events, received_s=int(self._wall()))
        except StoreError:
            raise
        except Exception as error:
            if len(events) <= 1:
                sys.stderr.write(f"nostr writer: an event could not be stored: {problem(error)}\n")
                return interface.Written([Outcome.FAILED] * len(events), [0] * len(events), [])
        middle = len(events) // 2
        first, second = self._written(events[:middle]), self._written(events[middle:])
        return interface.Written(
            first.outcomes + second.outcomes, first.seqs + second.seqs, first.removed + second.removed
        )

    def _tend(self) -> None:
        """Let the store do what writes have left, unless it cannot be written."""
        if self._next_probe_s is not None:
            return
        self._next_tidy_s = self._now() + IDLE_S
        try:
            self._store.tend()
        except StoreError as error:
            self._failed(error)

    # Other work

    def _answer(self, call: Call) -> None:
        result: object = None
        error: str | None = None
        try:
            result = self._called(call)
        except StoreError as failure:
            error = str(failure)
        except (TypeError, LookupError, msgspec.ValidationError):
            error = "the writer does not know this call"
        self._send(Answer(call.number, result, error))

    def _called(self, call: Call) -> object:
        match call.name:
            case "statistics":
                return msgspec.to_builtins(self._store.statistics())
            case "delete":
                arguments = msgspec.convert(call.arguments, _Deletion)
                return self._store.delete(arguments.ids, forever=arguments.forever)
            case "since":
                return self._since(msgspec.convert(call.arguments, _Since))
            case "positions":
                return {"positions": self._store.positions(), "last_seq": self._store.statistics().last_seq}
            case "keep_positions":
                self._store.keep_positions(msgspec.convert(call.arguments, _Positions).positions)
                return None
            case "check":
                return msgspec.to_builtins(self._store.check(msgspec.convert(call.arguments, _Check).budget_s))
            case "compact":
                self._store.compact()
                return None
        raise LookupError(call.name)

    def _since(self, asked: _Since) -> list[tuple[int, bytes]]:
        """Return the events after a number, up to a size."""
        rows = self._store.since(asked.seq, asked.most)
        size = 0
        for place, (_, json) in enumerate(rows):
            size += len(json)
            if place and size > asked.max_bytes:
                return rows[:place]
        return rows

    def _after(self, swept: Swept, reason: Literal["expired", "retention"], interval_s: float) -> float:
        """Report what a piece of work has removed, and return when the next one is due."""
        if swept.removed:
            self._send(Removed(reason, swept.removed))
        return self._now() + (0 if swept.more else interval_s)

    def _probe(self, now: float) -> None:
        """Try whether the store can be written again, if that is due."""
        if self._next_probe_s is not None and now >= self._next_probe_s:
            self._store.probe()
            self._succeeded()

    def _failed(self, error: StoreError) -> None:
        if self._next_probe_s is None:
            self._send(Health(is_writable=False, cause=str(error)))
        self._next_probe_s = self._now() + PROBE_S

    def _succeeded(self) -> None:
        if self._next_probe_s is not None:
            self._next_probe_s = None
            self._send(Health(is_writable=True))


def open_writer(config: bytes, send: Send) -> Writer:
    """Open the store of a configuration, creating it if it is missing, and report that the writer is ready.

    Raises `StoreError`.
    """
    message = msgspec.msgpack.decode(config, type=WriterConfig)
    store = sqlite.open_writer(
        message.database, is_relaxed=not message.is_durable, progress=lambda line: sys.stderr.write(f"nostr: {line}\n")
    )
    statistics = store.statistics()
    send(Ready(statistics.last_seq, sum(statistics.events.values())))
    return Writer(store, message, send)
