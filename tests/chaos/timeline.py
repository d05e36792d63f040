"""What happened in a run of the chaos driver, and whether it was allowed. PURE.

A *seat* is an interval in which one instance served a key. Seats of one key at two instances that overlap are only
allowed while the directory could not prevent it: see `Rules`. Times are seconds of one clock.
"""

from __future__ import annotations

import math
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


CUTS = frozenset({"cut-redis", "one-way-redis", "loss"})
"""Kinds of faults that can keep an instance from its lease although it runs."""


@dataclass(frozen=True)
class Rules:
    """What excuses an overlap: a chain of faults that has lasted for all of it.

    Faults belong to one *chain* if each begins before what the others have led to is over, at most ``late_s`` after
    their end: an instance that is stopped while Redis comes back hears only afterwards that it has lost its keys.

    An instance that cannot renew its lease, as it is stopped or cut off from Redis, keeps others from its keys for the
    rest of that, so an overlap begins ``left_s`` after the fault or later. With ``refuses_on_outage``, outages of Redis
    excuse nothing else, and claims are served by leases only. Otherwise an overlap may begin with an outage, and with a
    cut, at once. Nothing is an excuse if the balancer ``is_steady``: then nothing depends on Redis. ``short_s`` is the
    length of an overlap that two processes' clocks and logs cannot tell from none.
    """

    refuses_on_outage: bool
    is_steady: bool = False
    left_s: float = 3.5
    late_s: float = 4.0
    short_s: float = 0.25

    def excuse(self, faults: Sequence[Fault], overlap: Overlap) -> bool:
        """Tell whether some of the faults excuse an overlap."""
        if self.is_steady:
            return False
        begins, until = math.inf, -math.inf
        for fault in sorted((one for one in faults if self._concerns(one, overlap)), key=lambda fault: fault.since):
            if fault.since > until + self.late_s:
                begins = math.inf
            begins = min(begins, fault.since + (self.left_s if self._keeps_lease(fault) else 0.0))
            until = max(until, fault.until)
            if begins - self.short_s <= overlap.since and overlap.until <= until + self.late_s:
                return True
        return False

    def _concerns(self, fault: Fault, overlap: Overlap) -> bool:
        if fault.what == "redis":
            return not self.refuses_on_outage
        at_one = any(instance.startswith(fault.what) for instance in overlap.instances)
        return at_one and (fault.kind == "stop" or fault.kind in CUTS)

    def _keeps_lease(self, fault: Fault) -> bool:
        """Tell whether what the instance holds stays its own for a while."""
        return fault.kind == "stop" or self.refuses_on_outage


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
            if overlap.length_s > rules.short_s and not rules.excuse(self.faults, overlap)
        ]


def longest(overlaps: Sequence[Overlap]) -> float:
    """Return the length of the longest overlap, 0 if there is none."""
    return max((overlap.length_s for overlap in overlaps), default=0.0)
