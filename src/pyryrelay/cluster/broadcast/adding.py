"""Add entries to a stream: those of one turn leave in one call, and one call is in flight.

A call costs much more than an entry in it. So a call follows another one after `INTERVAL_S` at the earliest, unless it
is full; the first one for a while leaves at once. What waits is bounded, and nothing is tried again: those who add keep
what must not be lost. Calls share the connection with the rest of the cluster, so one call is small enough not to delay
the others. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from pyryrelay.broadcast import MAX_BODY_BYTES, BroadcastError
from pyryrelay.cluster.broadcast.scripts import ADD
from pyryrelay.cluster.broadcast.stream import Stream
from pyryrelay.cluster.redis.interface import AnswerError, Redis

__all__ = ["CALL_BYTES", "CALL_ENTRIES", "INTERVAL_S", "LIVES_S", "MAX_WAITING_BYTES", "Adder"]

INTERVAL_S: Final = 0.02
CALL_ENTRIES: Final = 200
CALL_BYTES: Final = 262_144
"""The bounds of one call; an entry that is larger has a call of its own."""
MAX_WAITING_BYTES: Final = 16 * 1_048_576
"""What may wait for its call; each entry counts 1 KiB more than it has."""
_ENTRY_BYTES: Final = 1024
LIVES_S: Final = 31 * 86_400
"""After how long a stream ends to which nobody adds anything, such as that of a cluster with another name."""

_Waiting = tuple[bytes, "Deferred[None]"]


class Adder:
    """Adds to one stream. ``limit_bytes`` is what the server keeps of it.

    ``call_later`` makes a call later, and ``refused`` is told what the server answered instead of adding.
    """

    def __init__(
        self,
        redis: Redis,
        stream: Stream,
        limit_bytes: int,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], object]], object],
        refused: Callable[[str], object],
    ) -> None:
        self._redis = redis
        self._stream = stream
        self._first = (limit_bytes, LIVES_S * 1000)
        self._now = now
        self._call_later = call_later
        self._refused = refused
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._next_at = -inf
        self._is_busy = self._is_stopped = False

    def add(self, body: bytes) -> Deferred[None]:
        """Add an entry. See `pyryrelay.broadcast.Broadcast.add`."""
        problem = self._problem(body)
        if problem:
            self._stream.figures.failed += 1
            return fail(BroadcastError(problem))
        done: Deferred[None] = Deferred()
        self._waiting.append((body, done))
        self._waiting_bytes += len(body) + _ENTRY_BYTES
        if not self._is_busy:
            self._is_busy = True
            self._send_soon()
        return done

    def stop(self) -> None:
        """Add nothing more. What waits fails; what is in flight may still be added."""
        self._is_stopped = True
        waiting, self._waiting = self._waiting, deque()
        self._fail(list(waiting), "this relay stops")

    def _problem(self, body: bytes) -> str:
        if self._is_stopped:
            return "this relay stops"
        if len(body) > MAX_BODY_BYTES:
            return f"{len(body)} bytes are more than an entry may have"
        if not self._redis.is_up or self._redis.ahead_s is None:
            return "the server is down"
        if self._waiting_bytes > MAX_WAITING_BYTES:
            return "too many entries wait for the server"
        return ""

    def _send_soon(self) -> None:
        is_full = len(self._waiting) >= CALL_ENTRIES or self._waiting_bytes >= CALL_BYTES
        self._call_later(0.0 if is_full else max(0.0, self._next_at - self._now()), self._send)

    def _send(self) -> None:
        """Send what waits, as much as fits in a call."""
        if not self._waiting:
            return
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < CALL_ENTRIES:
            size += len(self._waiting[0][0])
            if batch and size > CALL_BYTES:
                break
            batch.append(self._waiting.popleft())
        self._waiting_bytes -= sum(len(body) + _ENTRY_BYTES for body, _ in batch)
        now = self._now()
        self._next_at = now + INTERVAL_S
        sent_at = now + (self._redis.ahead_s or 0.0)
        sealed = [self._stream.sealed(body, sent_at) for body, _ in batch]
        answer: Deferred[Any] = self._redis.call(ADD, self._stream.names, (*self._first, *sealed))
        answer.addCallbacks(self._added, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        answer.addBoth(self._answered)

    def _answered(self, ignored: object) -> None:
        self._is_busy = bool(self._waiting)
        if self._waiting:
            self._send_soon()

    def _added(self, answer: object, batch: list[_Waiting]) -> None:
        self._stream.figures.added += len(batch)
        for _, done in batch:
            done.callback(None)

    def _failed(self, failure: Failure, batch: list[_Waiting]) -> None:
        if failure.check(AnswerError):
            self._refused(str(failure.value))
        self._fail(batch, str(failure.value))

    def _fail(self, batch: list[_Waiting], reason: str) -> None:
        self._stream.figures.failed += len(batch)
        for _, done in batch:
            done.errback(Failure(BroadcastError(reason)))
