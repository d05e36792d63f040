"""Periodic work while the relay runs. Times are seconds."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

__all__ = ["Periodic"]

_log = Logger(namespace="pyryrelay")


class Periodic:
    """Make calls at fixed intervals until `stop`. A call that fails is logged, and made again."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._loops: list[LoopingCall] = []

    def every(self, interval_s: float, call: Callable[[], Any]) -> None:
        """Make a call every ``interval_s``, but not again before its Deferred has fired."""
        loop = LoopingCall(_attempt, call)
        loop.clock = self._reactor
        loop.start(interval_s, now=False)
        self._loops.append(loop)

    def stop(self) -> None:
        """Make no more calls."""
        for loop in self._loops:
            loop.stop()


@inlineCallbacks
def _attempt(call: Callable[[], Any]) -> Generator[Deferred[Any], Any, None]:
    try:
        yield maybeDeferred(call)
    except Exception:
        _log.failure("Periodic work failed")
