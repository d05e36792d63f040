"""Totals since the start, as the metrics show them. The keys are fixed words, never text from a client. PURE.

Units: `_s` seconds, `_bytes` bytes; counts otherwise.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from pyryrelay.nostr.messages import SENT_VERBS, VERBS
from pyryrelay.nostr.policies.refusal import AUTH_WORDS, CLOSED_WORDS, EVENT_WORDS, NOT_STORED

EVENT_OUTCOMES: Final = ("stored", "ephemeral", "duplicate", "superseded", *EVENT_WORDS)
ABORTS: Final = ("expensive", "timeout", "error", "cancelled")
"""Why a query ended before its end."""
AUTH_OUTCOMES: Final = ("accepted", NOT_STORED.word, *AUTH_WORDS)

SECONDS_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Histogram:
    """A histogram: how many values lie at or below each bound. ``counts`` has one place more, for those above all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def _zeros(*words: str) -> dict[str, int]:
    return dict.fromkeys(words, 0)


def _seconds() -> Histogram:
    return Histogram(SECONDS_BUCKETS)


@dataclass(slots=True)
class Counts:
    """The totals of one relay."""

    received: dict[str, int] = field(default_factory=lambda: _zeros(*VERBS))
    sent: dict[str, int] = field(default_factory=lambda: _zeros(*SENT_VERBS))
    events: dict[str, int] = field(default_factory=lambda: _zeros(*EVENT_OUTCOMES))
    closed: dict[str, int] = field(default_factory=lambda: _zeros(*CLOSED_WORDS))
    invalid_closed: int = 0
    """Connections that were closed for too many invalid messages."""
    queries_running: int = 0
    queries_waiting: int = 0
    query_first_s: Histogram = field(default_factory=_seconds)
    query_whole_s: Histogram = field(default_factory=_seconds)
    query_work_units: int = 0
    query_aborted: dict[str, int] = field(default_factory=lambda: _zeros(*ABORTS))
    write_batch_events: Histogram = field(default_factory=lambda: Histogram(BATCH_BUCKETS))
    write_s: Histogram = field(default_factory=_seconds)
    verify_s: Histogram = field(default_factory=_seconds)
    fanout_deliveries: int = 0
    slow_clients_closed: int = 0
    auth: dict[str, int] = field(default_factory=lambda: _zeros(*AUTH_OUTCOMES))
    authed_connections: int = 0
    exempt: int = 0
    deleted: int = 0
    expired: int = 0
