"""Loggers for lines that every connection causes, for failures of Deferreds, and for lines that would repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

MAX_THINGS: Final = 10
"""Things that `Repeats` has lines about in one interval; a reason may hold a number that is never the same."""


class UnfilteredLogger(Logger):
    """A `Logger` that does not check whether the level of an event is enabled, and so takes a fifth of the time."""

    def emit(self, level: LogLevel, format: str | None = None, **event: object) -> None:  # noqa: A002
        """See `twisted.logger.Logger.emit`."""
        event.update(
            log_logger=self,
            log_level=level,
            log_namespace=self.namespace,
            log_source=self.source,
            log_format=format,
            log_time=time.time(),
        )
        self.observer(event)


class ErrbackLogger(Logger):
    """A `Logger` that also makes errbacks."""

    def errback(self, line: str) -> Callable[[Failure], None]:
        """Return an errback that logs ``line`` with the failure, and goes on."""
        return lambda failure: self.failure(line, failure)


class Repeats:
    """Tells which lines are to be left out because they only repeat what was logged. Times are seconds."""

    def __init__(self, now: Callable[[], float], interval_s: float) -> None:
        """``interval_s`` is the minimum interval between two lines about the same thing."""
        self._now = now
        self._interval_s = interval_s
        self._told_s: dict[str, float] = {}
        self._left_out = 0

    def due(self, what: str) -> int | None:
        """Return how many lines were left out before the one about ``what``; None if that is to be left out, too."""
        now = self._now()
        self._told_s = {told: at_s for told, at_s in self._told_s.items() if now - at_s < self._interval_s}
        if what in self._told_s or len(self._told_s) >= MAX_THINGS:
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        self._told_s[what] = now
        return left_out
