"""Read what others add to a stream, on a connection of its own, which waits for more where the server has no more.

One thing happens at a time: a read, the listener that takes what was read, or the wait. The wait is a blocking
``XREAD`` of the bell, which ends by itself before the deadline by which a dead server is noticed. When the bell rings,
a read follows another one after `INTERVAL_S` at the earliest, because a call costs much more than an entry in it. A
position is when the stream began, and the id of an entry in it: ``BEGAN/ID``. Times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.broadcast import MAX_BODY_BYTES, BroadcastListener, Entry
from pyryrelay.cluster.broadcast.scripts import READ
from pyryrelay.cluster.broadcast.seals import OVERHEAD_BYTES
from pyryrelay.cluster.broadcast.stream import Stream
from pyryrelay.cluster.redis.interface import AnswerError, DownError, Redis

__all__ = ["INTERVAL_S", "PAGE_BYTES", "PAGE_ENTRIES", "RETRY_S", "TIMEOUT_S", "WAIT_S", "Reader", "Reports"]

_log = Logger(namespace="pyryrelay")

PAGE_ENTRIES: Final = 200
PAGE_BYTES: Final = MAX_BODY_BYTES + OVERHEAD_BYTES
INTERVAL_S: Final = 0.02
WAIT_S: Final = 1.0
"""How long the server holds back its answer if there is nothing to read."""
TIMEOUT_S: Final = 1.5
"""The deadline of each call."""
RETRY_S: Final = 1.0
"""When to try again what the listener or the server has refused."""
_POSITION: Final = re.compile(r"([0-9]{1,20})/([0-9]{1,20}-[0-9]{1,20})")
_NOWHERE: Final = "0-0"


@dataclass(frozen=True, slots=True)
class Reports:
    """Whom a reader tells about its server: entries that were lost there, entries that were missed, a refusal."""

    lost: Callable[[], object]
    missed: Callable[[], object]
    refused: Callable[[str], object]


class Reader:
    """Reads one stream by ``redis``, a client that nobody else uses. Call `connected` each time it can be used.

    ``server_time`` is the time of the server's clock, None if it is not known. ``call_later`` makes a call later.
    """

    def __init__(
        self,
        redis: Redis,
        stream: Stream,
        position: str,
        listener: BroadcastListener,
        now: Callable[[], float],
        server_time: Callable[[], float | None],
        call_later: Callable[[float, Callable[[], object]], IDelayedCall],
        reports: Reports,
    ) -> None:
        known = _POSITION.fullmatch(position)
        self._began, self._last = known.groups() if known else ("", _NOWHERE)
        self._redis = redis
        self._stream = stream
        self._listener = listener
        self._now = now
        self._server_time = server_time
        self._call_later = call_later
        self._reports = reports
        self._timer: IDelayedCall | None = None
        self._is_busy = self._is_stopped = self._was_rung = False
        self._is_first = True
        self._has_read = bool(known)
        """Whether this process, or one before it, has found a stream."""
        self._has_caught_up = False
        self._up_to_date_at = self._all_read_at = now()
        self._read_at = -inf

    @property
    def behind_s(self) -> float:
        """The time since everything on the server was taken in. While all is well, less than two seconds."""
        return self._now() - self._up_to_date_at

    def connected(self) -> None:
        """Go on: the server can be used again."""
        self._is_first = True
        self._was_rung = False
        if not self._is_busy:
            self._read()

    def stop(self) -> None:
        """Read no more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Reading

    def _read(self) -> None:
        if self._is_stopped:
            return
        self._is_busy = True
        self._read_at = self._now()
        bounds = (PAGE_ENTRIES, PAGE_BYTES, PAGE_BYTES)
        answer = self._redis.call(READ, self._stream.names, (self._began, self._last, *bounds))
        answer.addCallback(self._heard).addErrback(self._failed)

    def _heard(self, answer: list[Any]) -> Deferred[None] | None:
        """Give the listener what was read, if it is from others."""
        if self._is_stopped:
            return None
        began, what, more = answer[0].decode(), answer[1], bool(answer[2])
        ids = [id_.decode() for id_ in answer[3::2]]
        self._note(what, ids)
        self._has_read = self._has_read or bool(began)
        if what != b"on":
            self._began, self._last = began, _NOWHERE
        if not ids:
            self._go_on(more=False)
            return None
        entries = self._entries(began, ids, answer[4::2])
        newest = f"{began}/{ids[-1]}"
        if not entries:
            self._taken(None, ids[-1], newest, more)
            return None
        taking = maybeDeferred(self._listener.entries, self._stream.source, entries)
        passed = "" if entries[-1].position == newest else newest
        return taking.addCallback(self._taken, ids[-1], passed, more)

    def _note(self, what: bytes, ids: Sequence[str]) -> None:
        """Tell about what is gone. After a connection, losses are no news: that is when they are found out."""
        was_first, self._is_first = self._is_first, False
        figures = self._stream.figures
        if what == b"missed":
            figures.missed += 1
            self._reports.missed()
            self._listener.missed(self._stream.source, *self._missed_s(ids))
        elif what != b"on" and self._has_read:
            if self._began:
                figures.begun_anew += 1
                if not was_first:
                    self._reports.lost()
            self._listener.lost(self._stream.source, 0.0 if what == b"lost" else self._not_read_s())

    def _not_read_s(self) -> float:
        """Return how long ago all was read here; infinite if that is not known."""
        if self._has_caught_up:
            return self._now() - self._all_read_at
        time, last_s = self._server_time(), _seconds(self._last)
        return inf if time is None or not last_s else max(0.0, time - last_s)

    def _missed_s(self, ids: Sequence[str]) -> tuple[float, float]:
        """Return how long ago the entries were added that were not kept: from when, until when."""
        time = self._server_time()
        if time is None or not ids:
            return self._not_read_s(), 0.0
        since_s = max(0.0, time - _seconds(self._last))
        if self._has_caught_up:
            since_s = min(since_s, self._now() - self._all_read_at)
        return since_s, min(since_s, max(0.0, time - _seconds(ids[0])))

    def _entries(self, began: str, ids: Sequence[str], raw: Sequence[bytes]) -> list[Entry]:
        found, stream, time = [], self._stream, self._server_time()
        for id_, each in zip(ids, raw, strict=True):
            if stream.seals.is_own(each):
                continue
            opened = stream.opened(each)
            if opened is None:
                stream.figures.unreadable += 1
                continue
            age_s = 0.0 if time is None else max(0.0, time - opened.sent_at)
            found.append(Entry(f"{began}/{id_}", opened.body, age_s))
        stream.figures.read += len(found)
        return found

    def _taken(self, ignored: object, last: str, passed: str, more: bool) -> None:
        if self._is_stopped:
            return
        self._last = last
        self._was_rung = False
        if passed:
            self._listener.passed(self._stream.source, passed)
        self._go_on(more=more)

    def _go_on(self, *, more: bool) -> None:
        if self._is_stopped:
            return
        if more:
            self._read()
            return
        self._up_to_date_at, self._has_caught_up = self._now(), True
        self._all_read_at = self._read_at  # the listener may have taken long since then
        if self._was_rung:
            # The bell rang, and nothing was there: somebody else rings it. Do not listen to it for a while.
            self._was_rung = False
            self._read_after(RETRY_S)
            return
        waiting = self._redis.command(
            "XREAD", "BLOCK", int(WAIT_S * 1000), "COUNT", 1, "STREAMS", self._stream.bell, self._last
        )
        waiting.addCallback(self._woken).addErrback(self._failed)

    def _woken(self, answer: object) -> None:
        self._was_rung = answer is not None
        left_s = self._read_at + INTERVAL_S - self._now()
        if left_s > 0.0:
            self._read_after(left_s)
        else:
            self._read()

    def _read_after(self, delay_s: float) -> None:
        if not self._is_stopped:
            self._timer = self._call_later(delay_s, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        self._read()

    def _failed(self, failure: Failure) -> None:
        """Wait for another connection, or for better answers."""
        if failure.check(DownError):
            self._is_busy = False
            return
        if failure.check(AnswerError):
            self._reports.refused(str(failure.value))
        else:
            _log.failure("Entries of other relays could not be taken in", failure)
        self._read_after(RETRY_S)


def _seconds(id_: str) -> float:
    """Return the time of an entry's id, by the server's clock."""
    return int(id_.partition("-")[0]) / 1000
