"""Has the sentinels of all servers asked now and then, and writes a line when one does not answer, or does again.

One that is away is noticed otherwise only when a failover needs it. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.logger import Logger

from pyryrelay.cluster.redis.client import RedisClient
from pyryrelay.cluster.redis.sentinels import Sentinel

__all__ = ["FAILURES", "LOOK_S", "SentinelWatch"]

_log = Logger(namespace="pyryrelay")

LOOK_S: Final = 10.0
FAILURES: Final = 2
"""How often in a row a sentinel has not answered when that is told: a busy machine may miss once."""


class SentinelWatch:
    """See the module's docstring."""

    def __init__(self, clients: Sequence[RedisClient], now: Callable[[], float]) -> None:
        self._groups = [client.sentinels for client in clients if client.sentinels is not None]
        self._now = now
        self._looked_at: float | None = None
        self._told: dict[int, float] = {}
        """Since when those are away about which a line was written, by their number."""

    @inlineCallbacks
    def look(self) -> Generator[Deferred[Any], Any, None]:
        """Ask them if that is due; to be called each second. Never fails."""
        now = self._now()
        if not self._groups or (self._looked_at is not None and now < self._looked_at + LOOK_S):
            return
        self._looked_at = now
        yield DeferredList([group.look() for group in self._groups])
        for number, sentinel in enumerate(sentinel for group in self._groups for sentinel in group.all):
            self._judge(number, sentinel)

    def _judge(self, number: int, sentinel: Sentinel) -> None:
        if sentinel.failures >= FAILURES and number not in self._told:
            self._told[number] = sentinel.since
            _log.warn(
                "sentinel {endpoint} of the cluster does not answer: {reason}; without most of the sentinels there is "
                "no failover",
                endpoint=sentinel.name,
                reason=sentinel.problem,
            )
        elif not sentinel.failures and number in self._told:
            seconds = round(self._now() - self._told.pop(number), 1)
            _log.info(
                "sentinel {endpoint} of the cluster answers again, after {seconds} s",
                endpoint=sentinel.name,
                seconds=seconds,
            )
