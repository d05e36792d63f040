"""Share the jail: each member tells the others whom it has sentenced or released.

Once a second a member adds its news to a stream and reads those of others. A newcomer, or a member that has missed a
part of the stream, learns all sentences that run from a copy beside it. If the server has lost them, every member adds
those that it knows. What came from others is not told again. A member that was away may know a sentence that was
released meanwhile: releases are kept for as long as the sentence would have run, and what was released is not told
again by those who only know it. So begin with `SentenceExchange.sync` when the jail has the sentences of its file, or
of another process. The end of a sentence is a time of the server's clock, of
which each member knows how far it is ahead of its own.

Times are seconds of the monotonic clock ``now``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks

from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.limits.rows import Row, Rows
from pyryrelay.cluster.limits.scripts import LEARN, TELL
from pyryrelay.cluster.redis.interface import Argument, Redis
from pyryrelay.guard import Jail, Sentence

__all__ = ["MOST_KEPT", "MOST_NEWS", "PAGE", "SentenceExchange"]

MOST_NEWS: Final = 200
PAGE: Final = 500
MOST_KEPT: Final = 100_000
_STREAM_ENTRIES: Final = 10_000


class _Told(NamedTuple):
    """A sentence, and what the others are told about it; see `pyryrelay.cluster.limits.scripts.TELL`."""

    what: str
    sentence: Sentence


class SentenceExchange:
    """Shares the sentences of ``jail`` while ``is_on()``. Call `sync` about once a second, on one server alone."""

    def __init__(
        self, redis: Redis, keys: Keys, rows: Rows, jail: Jail, now: Callable[[], float], is_on: Callable[[], bool]
    ) -> None:
        self.told = 0
        self.heard = 0
        self.unreadable = 0
        """Rows that no member of this cluster has written."""
        self._redis = redis
        self._keys = keys
        self._rows = rows
        self._jail = jail
        self._now = now
        self._is_on = is_on
        self._names = [keys.key(0, name) for name in ("jail", "jail-ends", "jail-rows")]
        self._last = ""
        """The last entry that was read; "" if the sentences of others are not known yet."""
        self._untold: deque[_Told] = deque()
        jail.keep_news()

    @inlineCallbacks
    def sync(self) -> Generator[Deferred[Any], Any, None]:
        """Tell and hear what is new. Fails with a `RedisError`."""
        if self._redis.ahead_s is None or not self._redis.is_up:
            return
        if not self._last:
            yield from self._learn()
        while True:
            told = self._take()
            answer = yield self._redis.call(TELL, self._names, self._arguments(told))
            self.told += len(told)
            if self._hear(answer) < PAGE and not self._untold:
                return

    def _take(self) -> list[_Told]:
        """Return what to tell next. What is lost on its way is not told again."""
        told: list[_Told] = []
        for _, sentence, released in self._jail.news(MOST_NEWS):
            told += [] if released is None else [_Told("release", released)]
            told += [] if sentence is None else [_Told("sentence", sentence)]
        while self._untold and len(told) < MOST_NEWS:
            told.append(self._untold.popleft())
        return told

    def _arguments(self, told: list[_Told]) -> list[Argument]:
        ahead_s = self._redis.ahead_s or 0.0
        arguments: list[Argument] = [self._last, MOST_KEPT, _STREAM_ENTRIES]
        for what, sentence in told:
            until = sentence.until_s + ahead_s
            times = None if what == "release" else sentence.times
            sealed = self._rows.sealed(sentence.key, until, times, sentence.origin_for_others)
            hashed = self._keys.hashed(b"jail", sentence.key.to_bytes(17, "big"))
            arguments += (what, hashed, int(until * 1000), sealed)
        return arguments

    def _learn(self) -> Generator[Deferred[Any], Any, None]:
        """Learn all sentences that run, and from which entry of the stream on to read."""
        newest, first = "", 0
        while True:
            answer = yield self._redis.call(LEARN, self._names, [first, first + PAGE - 1])
            newest = newest or answer[0].decode()
            self._apply(self._opened(answer[1:]))
            first += PAGE
            if len(answer) <= PAGE:
                break
        self._last = newest or "0-0"
        # What only this member knows: after a restart of the server, that is everything.
        now = self._now()
        self._untold = deque(_Told("keep", each) for each in self._jail.entries(now) if each.until_s > now)

    def _hear(self, answer: list[bytes]) -> int:
        """Apply what others have told; return how many entries there were."""
        newest, oldest = answer[0].decode(), answer[1].decode()
        entries = [entry.decode() for entry in answer[2::2]]
        if _order(newest) < _order(self._last) or (self._last != "0-0" and _order(oldest) > _order(self._last)):
            # The server has lost the stream, or this member was away for too long. Begin anew with the next call.
            self._last = ""
            return 0
        self._apply(self._opened(answer[3::2]))
        if entries:
            self._last = entries[-1]
        return len(entries)

    def _opened(self, sealed: list[bytes]) -> list[Row]:
        found = []
        for each in sealed:
            row = self._rows.opened(each) if each else None
            if row is not None:
                found.append(row)
            elif each:
                self.unreadable += 1
        return found

    def _apply(self, rows: list[Row]) -> None:
        ahead_s, now = self._redis.ahead_s or 0.0, self._now()
        for row in rows:
            if row.sender == self._rows.sender or not self._is_on():
                continue
            self.heard += 1
            if row.times is None:
                self._jail.discard(row.key)
            else:
                self._jail.absorb([Sentence(row.key, row.until - ahead_s, row.times, row.origin)], now)


def _order(entry: str) -> tuple[int, int]:
    """Return the order of an entry of a stream, which is two numbers; "" is before all others."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds or 0), int(number or 0)
