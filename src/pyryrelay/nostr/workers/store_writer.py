"""The writer's client: events go to the store in groups, and tools reach the store through it.

Whatever waits while the writer is busy becomes its next batch, so a slow disk makes large batches and nothing has to
wait for a timer. While one batch is being written, another may already be under way if it is large enough to be worth
it; then the writer does not idle while this process does other things.

A disk may hang, and the writer with it. Then what it was given waits, and nothing more is taken until it answers.

Several workers may share the writer. Then it also tells what it has stored for the others, all in the order of numbers,
and each worker says up to which number it has heard when it connects again.

All callbacks are called in a later turn of the reactor than the call that they answer. Times are in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred, fail

from pyryrelay.nostr.workers.wire import (
    Answer,
    Arrived,
    Call,
    FromWriter,
    Health,
    Join,
    Ready,
    Removed,
    Write,
    WriterConfig,
    Written,
    encode,
)
from pyryrelay.nostr.workers.worker_process import ChildServices, WorkerProcess

__all__ = ["SILENT_LOOKS", "StoreWriter", "Stored", "WriterError", "WriterEvents", "pieces"]

MAX_BATCH_WEIGHT: Final = 1_000
"""So much weight, and so at most so many events, become one transaction, which takes a quarter of a second or less."""
MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
EAGER_WEIGHT: Final = 100
"""So much waiting work becomes a batch although the writer is busy with another. Less is better written together
with what comes meanwhile."""
MAX_UNDER_WAY: Final = 2
SILENT_LOOKS: Final = 40
"""A writer that has not answered during so many calls of `StoreWriter.look` hangs. It is a number and no time, so that
a process that was stopped itself first reads what has come meanwhile."""

_decode = msgspec.msgpack.Decoder(FromWriter).decode


class WriterError(Exception):
    """A call could not be done; the text says why, without content."""


class Stored(NamedTuple):
    """What became of events: an `Outcome` and a number for each, in order; the number is 0 for what is not stored."""

    outcomes: Sequence[int]
    seqs: Sequence[int]


Done = Callable[[Stored | None], None]


class WriterEvents(Protocol):
    """What the writer's user is told besides answers."""

    def writer_ready(self, seq: int, events: int) -> None:
        """The writer has opened the store, of so many events; ``seq`` is the highest number of one."""

    def removed(self, reason: str, ids: Sequence[bytes]) -> None:
        """Events were deleted, because they ``expired``, by ``retention``, or by newer events that were ``written``.

        For the latter this is called before the answers of their batch.
        """

    def removed_elsewhere(self, ids: Sequence[bytes]) -> None:
        """Events were deleted, which another worker counts."""

    def arrived(self, events: Sequence[bytes], seqs: Sequence[int]) -> None:
        """Events were stored for other workers, with these numbers."""

    def batch_written(self, events: int, took_s: float) -> None:
        """A transaction was committed."""

    def health_changed(self, is_writable: bool, cause: str) -> None:
        """The store cannot be written any more, or can again."""


class _Waiting(NamedTuple):
    events: Sequence[bytes]
    size: int
    weight: int
    done: Done


def pieces(weights: Sequence[int]) -> Iterator[slice]:
    """Divide events of these weights into calls of `StoreWriter.write`, in order: a single one may weigh anything."""
    start = total = 0
    for place, weight in enumerate(weights):
        if place > start and total + weight > MAX_BATCH_WEIGHT:
            yield slice(start, place)
            start, total = place, 0
        total += weight
    if weights:
        yield slice(start, len(weights))


class StoreWriter:
    """The store's only writer. Nothing is done before `start`. ``is_shared`` says that other workers share it."""

    def __init__(
        self, services: ChildServices, config: WriterConfig, events: WriterEvents, *, is_shared: bool = False
    ) -> None:
        self._process = WorkerProcess(services, "writer", config, self)
        self._services = services
        self._events = events
        self._waiting: deque[_Waiting] = deque()
        self._waiting_weight = 0
        self._under_way: dict[int, list[_Waiting]] = {}
        self._calls: dict[int, Deferred[object]] = {}
        self._number = 0
        self._is_ready = False
        self._is_writable = True
        self._looks = 0
        """How often it was looked since the writer has last answered, while it had something to do."""
        self._closed: Deferred[None] | None = None
        self._is_shared = is_shared
        self._heard: int | None = None
        """All events up to this number are known here, none above it; None before the store was opened."""
        self.database = ""
        """What a writer that is shared has opened."""

    @property
    def is_healthy(self) -> bool:
        """Whether the store is open, and could be written when that was last tried."""
        return self._is_ready and self._is_writable and not self._hangs

    @property
    def _hangs(self) -> bool:
        return self._looks >= SILENT_LOOKS

    def look(self) -> None:
        """Notice whether the writer answers; call it four times a second."""
        if not self._under_way:
            self._looks = 0
            return
        self._looks += 1
        if self._looks == SILENT_LOOKS:
            self._events.health_changed(False, "its writer does not answer")

    def _answers(self) -> None:
        """Note that the writer answers."""
        if self._hangs and self._is_writable:
            self._events.health_changed(True, "")
        self._looks = 0

    def start(self) -> None:
        """Start the writer's process."""
        self._process.start()

    def configure(self, config: WriterConfig) -> None:
        """Change the rules of retention. Another database only takes effect with the next process."""
        self._process.configure(config)

    def write(self, events: Sequence[bytes], done: Done, weight: int | None = None) -> None:
        """Store canonical events, of at most `MAX_BATCH_WEIGHT`, in one transaction, perhaps with others.

        ``weight`` is their number if not given; see `pyryrelay.nostr.events.weight_of` and `pieces`.

        ``done`` is called once, when they are durable, or with None if they could not be stored. Answers come in the
        order of the calls, except for failures that are known at once.
        """
        if self._closed is not None or self._hangs or not self._process.is_available:
            self._services.call_later(0, lambda: done(None))
            return
        waiting = _Waiting(events, sum(map(len, events)), len(events) if weight is None else weight, done)
        self._waiting.append(waiting)
        self._waiting_weight += waiting.weight
        self._send_waiting()

    def call(self, name: str, arguments: dict[str, object] | None = None) -> Deferred[object]:
        """Have the writer do something else, with arguments and a result that MessagePack knows.

        The Deferred fails with `WriterError`.
        """
        if self._closed is not None or not self._process.is_running:
            return fail(WriterError("the store's writer is not running"))
        self._number += 1
        answer = self._calls[self._number] = Deferred[object]()
        self._process.send(encode(Call(self._number, name, arguments or {})))
        return answer

    def close(self) -> Deferred[None]:
        """Answer what waits, take nothing more, and end the process; the Deferred fires when it has ended."""
        if self._closed is None:
            self._closed = Deferred()
            self._close_if_idle()
        return self._closed

    # What the process reports

    def started(self) -> None:
        """See `pyryrelay.nostr.workers.worker_process.Client`."""
        if self._is_shared:
            self._process.send(encode(Join(self._heard)))
        self._send_waiting()

    def received(self, body: bytes) -> None:
        """Process an answer, or a report."""
        match _decode(body):
            case Written() as written:
                self._written(written)
            case Answer(number, result, error):
                answer = self._calls.pop(number)
                if error is None:
                    answer.callback(result)
                else:
                    answer.errback(WriterError(error))
            case Arrived(events, seqs):
                self._heard = seqs[-1]
                self._events.arrived(events, seqs)
            case Removed(reason, ids, True):
                self._events.removed(reason, ids)
            case Removed(_, ids):
                self._events.removed_elsewhere(ids)
            case Health(is_writable, cause):
                self._is_writable = is_writable
                self._events.health_changed(is_writable, cause)
            case Ready(seq, count, database):
                self._is_ready = True
                self._is_writable = True
                self.database = database
                if self._heard is None:
                    self._heard = seq
                self._events.writer_ready(seq, count)
        self._close_if_idle()

    def lost(self, delay_s: float) -> None:
        """Fail what the process was given; the rest waits for the next one if that is started at once."""
        self._is_ready = False
        self._looks = 0
        lost = [waiting for batch in self._under_way.values() for waiting in batch]
        self._under_way.clear()
        if delay_s or self._closed is not None:
            lost += self._waiting
            self._waiting.clear()
            self._waiting_weight = 0
        calls, self._calls = self._calls, {}
        for waiting in lost:
            waiting.done(None)
        for answer in calls.values():
            answer.errback(WriterError("the store's writer has ended"))
        self._close_if_idle()

    def ended(self) -> None:
        """The process has ended as it was told to."""
        self._is_ready = False
        if self._closed is not None and not self._closed.called:
            self._closed.callback(None)

    # Batches

    def _send_waiting(self) -> None:
        while self._waiting and self._process.is_running:
            needed = EAGER_WEIGHT if self._under_way else 1
            if len(self._under_way) >= MAX_UNDER_WAY or self._waiting_weight < needed:
                return
            batch = self._take_batch()
            events = [event for waiting in batch for event in waiting.events]
            self._number += 1
            self._under_way[self._number] = batch
            self._process.send(encode(Write(self._number, events, sum(waiting.weight for waiting in batch))))

    def _take_batch(self) -> list[_Waiting]:
        """Take what waits, up to the size of a batch, but at least one call."""
        batch: list[_Waiting] = []
        weight = size = 0
        while self._waiting:
            weight += self._waiting[0].weight
            size += self._waiting[0].size
            if batch and (weight > MAX_BATCH_WEIGHT or size > MAX_BATCH_BYTES):
                break
            batch.append(self._waiting.popleft())
            self._waiting_weight -= batch[-1].weight
        return batch

    def _written(self, written: Written) -> None:
        batch = self._under_way.pop(written.number)
        self._answers()
        if self._is_shared:
            self._heard = max(self._heard or 0, *written.seqs, 0)
        self._send_waiting()
        if written.removed:
            self._events.removed("written", written.removed)
        if written.batch_events:
            self._events.batch_written(written.batch_events, written.took_s)
        start = 0
        for waiting in batch:
            end = start + len(waiting.events)
            if written.outcomes:
                waiting.done(Stored(written.outcomes[start:end], written.seqs[start:end]))
            else:
                waiting.done(None)
            start = end

    def _close_if_idle(self) -> None:
        if self._closed is not None and not (self._waiting or self._under_way or self._calls):
            self._process.close()
