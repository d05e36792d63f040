"""What the program logs, as events and as the lines of a log file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.logger import ILogObserver, LogEvent, eventAsText, formatEvent, globalLogPublisher
from zope.interface import implementer


@implementer(ILogObserver)
class Captured:
    """The log events of a stretch of time, in order."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("pyryrelay"):
            self.events.append(event)

    @property
    def texts(self) -> list[str]:
        """Return the messages."""
        return [formatEvent(event) for event in self.events]

    @property
    def lines(self) -> list[str]:
        """Return the lines of a log file."""
        text = "\n".join(eventAsText(event) for event in self.events)
        return text.splitlines()


@contextmanager
def captured() -> Iterator[Captured]:
    """Capture everything that this package logs meanwhile."""
    log = Captured()
    globalLogPublisher.addObserver(log)
    try:
        yield log
    finally:
        globalLogPublisher.removeObserver(log)
