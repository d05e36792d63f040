"""What another host did not read in time is announced again here, between two times; see `Trimmed` for the questions.

All hosts hear a question, and each has nearly all events, whoever announced them first. So each waits for a random
time, and leaves out what it has heard another host announce meanwhile: in the end every event is announced about once,
and if a host ends in the middle, the next one goes on. An answer goes at a pace that hosts can take in, stops while new
events wait, and has at most `MAX_AGAIN` events; the next answer begins when it has ended.

Nothing of this moves how far this host has announced. What was asked is kept, so the next process begins it again.
Times of spans are whole seconds of the wall clock, others are durations in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.broadcast import MAX_BODY_BYTES, Broadcast, BroadcastError
from pyryrelay.nostr.replication.entries import ONLY, Wish, body_of, key_of, wish_body
from pyryrelay.nostr.replication.history import History, Span, joined, spans_in
from pyryrelay.nostr.replication.outbox import Caller
from pyryrelay.nostr.replication.progress import Progress
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.replication.trimmed import MARGIN_S, span_of
from pyryrelay.nostr.workers.store_writer import WriterError

__all__ = ["FIRST_S", "MAX_HEARD", "MAX_SPANS", "PER_S", "SPREAD_S", "Answers", "Log"]

FIRST_S: Final = 6.0
"""How long to wait for the questions of others that have come back, too, so that one answer is for all of them."""
SPREAD_S: Final = 10.0
"""By how much the hosts that answer differ."""
PER_S: Final = 1_000
MOST: Final = 100
MAX_BYTES: Final = 256 * 1024
"""How much is read from the store at once, and announced together."""
RETRY_S: Final = 5.0
BUSY_S: Final = 1.0
BUSY: Final = 200
"""While more new events wait than this, they go first."""
MAX_HEARD: Final = 50_000
"""How many ids of events are remembered that other hosts have announced meanwhile; about 10 MB."""
MAX_SPANS: Final = 8
"""How many questions are remembered; more of them become one."""

_log = Logger(namespace="pyryrelay")
_Rows = list[tuple[int, bytes]]


class Log(Protocol):
    """Where the answers report."""

    def announcing_once_more(self, count: int) -> None:
        """Log that so many numbers of events are announced again because another host asked for them."""


class Answers:
    """Answers. ``kept`` is what another process has left behind, see `text`.

    ``chance`` returns a number from 0 to 1. ``lacks`` tells whether something of a span is missing here as well.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        writer: Caller,
        progress: Progress,
        history: History,
        wall_s: Callable[[], int],
        call_later: Callable[[float, Callable[[], None]], object],
        chance: Callable[[], float],
        lacks: Callable[[Span], bool],
        totals: Totals,
        log: Log,
        kept: str = "",
    ) -> None:
        self._broadcast = broadcast
        self._writer = writer
        self._progress = progress
        self._history = history
        self._wall_s = wall_s
        self._call_later = call_later
        self._chance = chance
        self._lacks = lacks
        self._totals = totals
        self._report = log
        self._wanted = spans_in(kept)[:MAX_SPANS]
        self._current: Span | None = None
        self._began_s = 0
        self._is_running = self._is_stopped = False
        self._heard: dict[bytes, None] = {}

    @property
    def text(self) -> str:
        """What the next process has to answer."""
        return " ".join(span.text for span in ([self._current] if self._current else []) + self._wanted)

    def start(self) -> None:
        """Answer what the process before this one was asked."""
        self._wake()

    def stop(self) -> None:
        """Announce nothing more."""
        self._is_stopped = True

    def asked(self, wish: Wish, age_s: float) -> None:
        """Note a question of another host; it asked that long ago."""
        wanted = span_of(wish, age_s, self._wall_s())
        if wanted.since_s > wanted.until_s:
            return
        current, wanted = self._current, wanted.wider(MARGIN_S)
        if current is not None and current.covers(wanted) and wanted.until_s <= self._began_s:
            return  # who asks will read all of that answer
        self._wanted = joined(self._wanted, wanted, MAX_SPANS)
        self._wake()

    def heard(self, bodies: Sequence[bytes]) -> None:
        """Note what another host has announced just now."""
        if self._is_running:
            for body in bodies:
                self._heard[key_of(body)] = None
            while len(self._heard) > MAX_HEARD:
                del self._heard[next(iter(self._heard))]

    def _wake(self) -> None:
        if self._wanted and not self._is_running and not self._is_stopped:
            self._is_running = True
            self._run().addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        """Go on with the next question."""
        self._is_running, self._current = False, None
        _log.failure("Events could not be announced again for another host", failure)

    @inlineCallbacks
    def _run(self) -> Generator[Deferred[Any], Any, None]:
        while self._wanted:
            yield self._sleep(FIRST_S + self._chance() * SPREAD_S)
            self._current = span = self._wanted.pop(0)
            self._began_s = self._wall_s()
            given = yield self._answer(span)
            yield self._tell_end(given)
            self._current = None
        self._is_running = False
        self._heard.clear()

    @inlineCallbacks
    def _answer(self, span: Span) -> Generator[Deferred[Any], Any, Span]:
        """Announce what was announced in a span, and return of which part of it that was everything."""
        part = self._history.between(span, self._progress.top)
        seq = part.first
        if part.last > seq:
            self._report.announcing_once_more(part.last - seq)
        while seq < part.last:
            while self._progress.waiting > BUSY:
                yield self._sleep(BUSY_S)
            rows = yield self._read(seq)
            mine = [row for row in rows if row[0] <= part.last]
            yield self._announce([json for _, json in mine])
            seq = mine[-1][0] if mine else part.last
            yield self._sleep(len(mine) / PER_S)
        since_s = span.until_s if self._lacks(span) else min(part.since_s, span.until_s)
        return Span(since_s, span.until_s)

    @inlineCallbacks
    def _read(self, seq: int) -> Generator[Deferred[Any], Any, _Rows]:
        asked: dict[str, object] = {"seq": seq, "most": MOST, "max_bytes": MAX_BYTES}
        while True:
            try:
                rows = yield self._writer.call("since", asked)
            except WriterError:
                yield self._sleep(RETRY_S)
            else:
                return msgspec.convert(rows, _Rows)

    @inlineCallbacks
    def _announce(self, jsons: Sequence[bytes]) -> Generator[Deferred[Any], Any, None]:
        """Announce events, as soon as the servers take them."""
        bodies = [body for json in jsons if len(body := body_of(json)) <= MAX_BODY_BYTES]
        while bodies := [body for body in bodies if key_of(body) not in self._heard]:
            added = [self._broadcast.add(key_of(body), body) for body in bodies]
            results: list[tuple[bool, Any]] = yield DeferredList(added, consumeErrors=True)
            bodies = [body for body, (is_added, _) in zip(bodies, results, strict=True) if not is_added]
            self._totals.announced += len(results) - len(bodies)
            if bodies:
                yield self._sleep(RETRY_S)

    @inlineCallbacks
    def _tell_end(self, given: Span) -> Generator[Deferred[Any], Any, None]:
        """Tell those who have asked that this was all."""
        while True:
            wall_s = self._wall_s()
            body = wish_body(ONLY, max(0, wall_s - given.since_s), max(0, wall_s - given.until_s))
            try:
                yield self._broadcast.add(body, body)
            except BroadcastError:
                yield self._sleep(RETRY_S)
            else:
                return

    def _sleep(self, seconds: float) -> Deferred[None]:
        """Wait; for ever after `stop`."""
        slept: Deferred[None] = Deferred()
        self._call_later(seconds, lambda: None if self._is_stopped else slept.callback(None))
        return slept
