"""The sentinels of a URL: which of them answer, and what each one calls the primary.

Before a connection they are asked one after the other, beginning with the one that answered last. `Sentinels.look` asks
all of them, so that one that is away is known before a failover needs it. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks

from pyryrelay.cluster.redis.interface import DownError, RedisError
from pyryrelay.config.options.redis_url import RedisHost

__all__ = ["Sentinel", "Sentinels", "reason_of"]


@dataclass(slots=True)
class Sentinel:
    """One of them: why it did not answer when it was asked last ("" if it did, or was not asked yet), and since when.

    ``primary`` is the address that it has named last, and ``failures`` counts how often in a row it did not answer.
    """

    host: RedisHost
    problem: str = ""
    since: float = 0.0
    primary: str = ""
    failures: int = 0

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return str(self.host)

    def answered(self, primary: str) -> None:
        """Note an answer."""
        self.problem, self.failures, self.primary = "", 0, primary

    def failed(self, problem: str, now: float) -> None:
        """Note that there was none."""
        if not self.failures:
            self.since = now
        self.failures += 1
        self.problem = problem.removeprefix(f"{self.name}: ")


class Sentinels:
    """See the module's docstring. ``ask`` connects to one and asks it for the address of the primary ``service``."""

    def __init__(
        self,
        hosts: Sequence[RedisHost],
        service: str,
        ask: Callable[[RedisHost], Deferred[RedisHost]],
        now: Callable[[], float],
    ) -> None:
        self.all = tuple(Sentinel(host) for host in hosts)
        self.service = service
        self._ask = ask
        self._now = now
        self._order = [*self.all]
        self._is_looking = False

    @inlineCallbacks
    def primary(self) -> Generator[Deferred[Any], Any, RedisHost]:
        """Ask for the primary. Fails with `DownError` that says what the last one answered."""
        reason = ""
        for sentinel in list(self._order):
            try:
                found: RedisHost = yield self._asked(sentinel)
            except RedisError as error:
                reason = str(error)
                self._order.remove(sentinel)
                self._order.append(sentinel)
                continue
            return found
        raise DownError(f"no sentinel knows {self.service!r} ({reason})")

    @inlineCallbacks
    def look(self) -> Generator[Deferred[Any], Any, None]:
        """Ask all of them, unless that is going on. Never fails."""
        if not self._is_looking:
            self._is_looking = True
            yield DeferredList([self._asked(sentinel) for sentinel in self.all], consumeErrors=True)
            self._is_looking = False

    @inlineCallbacks
    def _asked(self, sentinel: Sentinel) -> Generator[Deferred[Any], Any, RedisHost]:
        try:
            found: RedisHost = yield self._ask(sentinel.host)
        except Exception as error:
            sentinel.failed(reason_of(error), self._now())
            raise
        sentinel.answered(str(found))
        return found


def reason_of(error: object) -> str:
    """Return why something failed, in a few words."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
