"""What happened in a run of the chaos driver, and whether it was allowed. PURE.

A *seat* is an interval in which one instance served a key. Seats of one key at two instances that overlap are only
allowed while the directory could not prevent it: see `Rules`. Times are seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple


class Seat(NamedTuple):
    """An instance serves a key. ``until`` is infinite if it still does."""

    key: str
    instance: str
    since: float
    until: float


class Fault(NamedTuple):
    """Something was done to an instance or to Redis, which lasted from ``since`` to ``until``."""

    kind: str
    what: str
    since: float
    until: float


class Overlap(NamedTuple):
    """Two instances served one key."""

    key: str
    instances: tuple[str, str]
    since: float
    until: float

    @property
    def length_s(self) -> float:
        """How long."""
        return self.until - self.since


@dataclass(frozen=True)
class Rules:
    """What excuses an overlap.

    ``lease_s``: an instance that was stopped for longer may still be seated when another one is. With
    ``refuses_on_outage``, outages of Redis excuse nothing. ``late_s`` is how long after a fault its consequences may
    last, and ``short_s`` the length of an overlap that two processes' clocks and logs cannot tell from none.
    """

    refuses_on_outage: bool
    lease_s: float = 6.0
    late_s: float = 12.0
    short_s: float = 0.25


@dataclass
class Timeline:
    """The seats and faults of a run."""

    seats: list[Seat] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def overlaps(self) -> list[Overlap]:
        """Return all overlaps, in order."""
        by_key: dict[str, list[Seat]] = {}
        for seat in self.seats:
            by_key.setdefault(seat.key, []).append(seat)
        found = []
        for key, seats in by_key.items():
            for one, other in combinations(sorted(seats, key=lambda seat: seat.since), 2):
                since, until = max(one.since, other.since), min(one.until, other.until)
                if one.instance != other.instance and since < until:
                    found.append(Overlap(key, (one.instance, other.instance), since, until))
        return sorted(found, key=lambda overlap: overlap.since)

    def violations(self, rules: Rules) -> list[Overlap]:
        """Return the overlaps that nothing excuses."""
        return [
            overlap
            for overlap in self.overlaps()
            if overlap.length_s > rules.short_s and not self._is_excused(overlap, rules)
        ]

    def _is_excused(self, overlap: Overlap, rules: Rules) -> bool:
        for fault in self.faults:
            if not fault.since <= overlap.until or overlap.since > fault.until + rules.late_s:
                continue
            if (
                fault.kind == "stop"
                and fault.what in overlap.instances
                and fault.until - fault.since >= rules.lease_s - 2
            ):
                return True
            if fault.what == "redis" and not rules.refuses_on_outage:
                return True
        return False


def longest(overlaps: Sequence[Overlap]) -> float:
    """Return the length of the longest overlap, 0 if there is none."""
    return max((overlap.length_s for overlap in overlaps), default=0.0)
