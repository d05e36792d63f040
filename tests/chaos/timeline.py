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


CUTS = frozenset({"cut-redis", "one-way", "delay", "loss"})
"""Kinds of faults that can keep an instance from its lease although it runs."""


@dataclass(frozen=True)
class Rules:
    """What excuses an overlap.

    ``lease_s``: an instance that was stopped for longer may still be seated when another one is, and so may one that
    was cut off from Redis, which needs some seconds to be connected again. With ``refuses_on_outage``, outages of Redis
    excuse nothing else. Nothing is an excuse if the balancer ``is_steady``: then nothing depends on Redis. ``late_s``
    is how long after a fault its consequences may last, and ``short_s`` the length of an overlap that two processes'
    clocks and logs cannot tell from none.
    """

    refuses_on_outage: bool
    is_steady: bool = False
    lease_s: float = 6.0
    late_s: float = 12.0
    short_s: float = 0.25

    def excuse(self, fault: Fault, overlap: Overlap) -> bool:
        """Tell whether a fault excuses an overlap."""
        if self.is_steady or fault.since > overlap.until or overlap.since > fault.until + self.late_s:
            return False
        if fault.what == "redis":
            return not self.refuses_on_outage
        if not any(instance.startswith(fault.what) for instance in overlap.instances):
            return False
        length_s = fault.until - fault.since
        if fault.kind == "stop":
            return length_s >= self.lease_s - 2
        return fault.kind in CUTS and (not self.refuses_on_outage or length_s >= self.lease_s - 4.5)


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
            if overlap.length_s > rules.short_s and not any(rules.excuse(fault, overlap) for fault in self.faults)
        ]


def longest(overlaps: Sequence[Overlap]) -> float:
    """Return the length of the longest overlap, 0 if there is none."""
    return max((overlap.length_s for overlap in overlaps), default=0.0)
