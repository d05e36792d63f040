"""What a protocol is built with, on a clock that only the test moves."""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from pyryrelay.observe.log import EventLog
from pyryrelay.protocol import Services


def services(clock: Clock, refused: Counter[tuple[str | None, str]] | None = None) -> Services:
    """Return services without threads: calls in a thread are made at once, and log lines are written at once."""
    counts = Counter() if refused is None else refused
    log = EventLog("full", clock.seconds)
    return Services(clock.seconds, clock.callLater, lambda call: maybeDeferred(call), log, lambda: counts)
