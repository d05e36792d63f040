"""The announcing: what is new in the store is told to the other hosts, in the order of its numbers.

Events are read from the store again rather than kept in memory, so those that wait while the servers of the cluster are
down cost nothing. Many are announced at a pace, and what clients publish meanwhile is announced before them (`News`).
Publishers never wait for this. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks

from pyryrelay.broadcast import MAX_BODY_BYTES, Broadcast, BroadcastError
from pyryrelay.nostr.replication.entries import body_of, key_of
from pyryrelay.nostr.replication.news import News
from pyryrelay.nostr.replication.progress import Progress
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.workers.store_writer import WriterError

__all__ = ["Caller", "Log", "Outbox"]

MOST: Final = 200
MAX_BYTES: Final = 512 * 1024
"""How much is read from the store at once, and announced together."""
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 15.0
CALM_S: Final = 10.0
"""How often it is begun again with what may be lost: a server may come and go every second."""
MANY: Final = 2_000
"""So many are announced as fast as possible, and more of them at a pace: servers keep a limited number, and the others
have to read them before what is announced later."""
MANY_PER_S: Final = 2_000
NEWS_S: Final = 0.02
"""How often it is asked whether a server has what was announced ahead."""

_Rows = list[tuple[int, bytes]]


class Caller(Protocol):
    """The store's writer: a `pyryrelay.nostr.workers.store_writer.StoreWriter`."""

    def call(self, name: str, arguments: dict[str, object] | None = None) -> Deferred[object]:
        """Have something done."""


class Log(Protocol):
    """Where the announcing reports."""

    def announcing_stopped(self, reason: str) -> None:
        """Log that events wait to be announced."""

    def announcing_again(self, waiting: int) -> None:
        """Log that so many events, which have waited, are being announced."""

    def not_announced(self, size: int) -> None:
        """Log that an event is too large to be announced."""


class Outbox:
    """Announces what is stored here. Nothing is done before `connected`."""

    def __init__(
        self,
        broadcast: Broadcast,
        writer: Caller,
        progress: Progress,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        totals: Totals,
        log: Log,
    ) -> None:
        self.progress = progress
        self._broadcast = broadcast
        self._writer = writer
        self._now = now
        self._call_later = call_later
        self._totals = totals
        self._report = log
        self._is_connected = False
        self._is_waking = False
        self._is_running = False
        self._is_stopped = False
        self._failures = 0
        self._tries = 0
        self._rewound_s = now() - CALM_S
        self._is_rewinding = False
        self._paced_s = now() - MANY / MANY_PER_S
        """When the announced events would all be announced, at the pace; at least what `MANY` take ago."""
        self._news = News(broadcast, progress, totals)
        self._idle: list[Deferred[None]] = []

    def published(self, events: Sequence[tuple[int, bytes]]) -> None:
        """Announce what clients have published now if so much waits that it would take long; call `stored` then."""
        if self.progress.waiting > MOST:
            for seq, json in events:
                self._news.put(seq, json)
            if self._is_running:
                self._news.send()

    def stored(self, seq: int) -> None:
        """Announce what the store has up to a number, in a later turn: who has published it is answered first."""
        self.progress.stored(seq)
        if not (self._failures or self._is_running or self._is_waking):
            self._is_waking = True
            self._call_later(0, self.wake)

    def wake(self) -> None:
        """Announce what waits."""
        self._is_waking = False
        if self._is_connected and not self._is_running and not self._is_stopped:
            self._is_running = True
            self._run().addErrback(self._failed)

    def connected(self) -> None:
        """Announce again what a server may have lost, and go on with what waits."""
        self._is_connected = True
        wait_s = self._rewound_s + CALM_S - self._now()
        if wait_s <= 0:
            self._rewind()
            return
        if not self._is_rewinding:
            self._is_rewinding = True
            self._call_later(wait_s, self._rewind)
        self.wake()

    def again(self, seq: int) -> None:
        """Announce everything again after a number."""
        if seq < self.progress.announced:
            self.progress.back_to(seq, self._now())
            self.wake()

    def when_idle(self) -> Deferred[None]:
        """Return what fires when nothing waits, or when nothing more can be done about it now."""
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        self.wake()
        if not self._is_running:
            self.give_up()
        return done

    def give_up(self) -> None:
        """Let those go on who wait for `when_idle`."""
        idle, self._idle = self._idle, []
        for done in idle:
            done.callback(None)

    def stop(self) -> None:
        """Announce nothing more."""
        self._is_stopped = True
        self.give_up()

    def _rewind(self) -> None:
        self._is_rewinding = False
        self._rewound_s = self._now()
        self.progress.rewind(self._rewound_s)
        self.wake()

    # The work

    @inlineCallbacks
    def _run(self) -> Generator[Deferred[Any], Any, None]:
        progress = self.progress
        while progress.waiting and self._goes_on():
            self._news.send()
            last, rewinds = progress.last, progress.rewinds
            rows: _Rows = yield self._read(progress.announced)
            while self._news.are_under_way(seq for seq, _ in rows):
                yield self._sleep(NEWS_S)
            if not self._goes_on():
                break
            yield self._announce([row for row in rows if not progress.is_told(row[0])])
            if progress.rewinds == rewinds:
                progress.advance(rows[-1][0] if rows else last, self._now())
            self._succeeded()
            if (wait_s := self._pace_s(len(rows))) > 0 and progress.waiting:
                yield self._sleep(wait_s)
        self._news.send()
        self._is_running = False
        self.give_up()

    def _goes_on(self) -> bool:
        return not self._is_stopped

    def _read(self, seq: int) -> Deferred[_Rows]:
        asked: dict[str, object] = {"seq": seq, "most": MOST, "max_bytes": MAX_BYTES}
        return self._writer.call("since", asked).addCallback(lambda rows: msgspec.convert(rows, _Rows))

    @inlineCallbacks
    def _announce(self, rows: Sequence[tuple[int, bytes]]) -> Generator[Deferred[Any], Any, None]:
        """Announce events. Raises `BroadcastError` if one of them was not added."""
        adds: list[Deferred[None]] = []
        for _, json in rows:
            body = body_of(json)
            if len(body) > MAX_BODY_BYTES:
                self._totals.too_large += 1
                self._report.not_announced(len(json))
            else:
                adds.append(self._broadcast.add(key_of(body), body))
        results = yield DeferredList(adds, consumeErrors=True)
        for succeeded, result in results:
            if not succeeded:
                raise result.value
        self._totals.announced += len(adds)

    def _pace_s(self, count: int) -> float:
        """Return how long to wait after so many events."""
        now = self._now()
        self._paced_s = max(self._paced_s, now - MANY / MANY_PER_S) + count / MANY_PER_S
        return self._paced_s - now

    def _sleep(self, seconds: float) -> Deferred[None]:
        slept: Deferred[None] = Deferred()
        self._call_later(seconds, lambda: slept.callback(None))
        return slept

    def _succeeded(self) -> None:
        if self._failures:
            self._failures = 0
            self._report.announcing_again(self.progress.waiting)

    def _failed(self, failure: Any) -> None:
        """Try again later, or when a server is there again."""
        self._is_running = False
        failure.trap(BroadcastError, WriterError)
        self._failures += 1
        if self._failures == 1 and not self._is_stopped:
            self._report.announcing_stopped(str(failure.value))
        self.give_up()
        self._tries += 1
        tries = self._tries
        delay_s = min(RETRY_S * 2 ** min(self._failures - 1, 10), MAX_RETRY_S)
        self._call_later(delay_s, lambda: self.wake() if tries == self._tries else None)
