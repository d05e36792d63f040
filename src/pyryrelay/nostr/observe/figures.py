"""Figures of the store, asked for now and then, so that a scrape never waits for the database. Times are seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from pyryrelay.nostr.kinds import KindClass
from pyryrelay.protocol import Cancellable

INTERVAL_S: Final = 10.0
STORED_CLASSES: Final = tuple(one.value for one in KindClass if one is not KindClass.EPHEMERAL)


class Log(Protocol):
    """Where the opening of the store is reported."""

    def store_opened(self, events: int, size_bytes: int, version: int) -> None:
        """Log that the database is open."""


class StoreFigures:
    """How many events of each class are stored, and how large the database is, as of the last `INTERVAL_S`.

    ``ask`` returns what `pyryrelay.nostr.storage.interface.Statistics` has, as a mapping. Failures of it are not
    reported here: the relay reports the trouble that causes them, and the old figures stay.
    """

    def __init__(
        self,
        ask: Callable[[], Deferred[Any]],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        log: Log,
    ) -> None:
        self.events: Mapping[str, int] = dict.fromkeys(STORED_CLASSES, 0)
        self.database_bytes = 0
        self.version = 0
        self._ask = ask
        self._call_later = call_later
        self._report = log
        self._timer: Cancellable | None = None
        self._is_opening = False
        self._is_stopped = False

    def ready(self) -> None:
        """Ask from now on; called when the store is open, and each time that its process was started again."""
        self._is_opening = True
        if self._timer is not None:
            self._timer.cancel()
        self._look()

    def stop(self) -> None:
        """Ask no more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._is_stopped:
            self._timer = self._call_later(INTERVAL_S, self._look)
            self._ask().addCallbacks(self._learn, lambda failure: None)

    def _learn(self, figures: Mapping[str, Any]) -> None:
        counts: Mapping[str, int] = figures["events"]
        self.events = {one: counts.get(one, 0) for one in STORED_CLASSES}
        self.database_bytes = figures["database_bytes"]
        self.version = figures["version"]
        if self._is_opening:
            self._is_opening = False
            self._report.store_opened(sum(self.events.values()), self.database_bytes, self.version)
