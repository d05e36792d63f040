"""What happened in a run of the chaos driver, and whether it was allowed. PURE.

A *seat* is an interval in which one instance served a key. Seats of one key at two instances that overlap are only
allowed while the directory could not prevent it: see `Rules`. Times are seconds of one clock.

What excuses an overlap is a fault that was made, or a machine that was measured to be late; see `lateness.excuses`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final, NamedTuple

from tests.chaos.lateness.excuses import OUTAGE_S, RECOVERS_S, extended, on_path, outages, written_late_s
from tests.chaos.lateness.late import REDIS, Late


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


FAULTS: Final = "faults"
SHORT: Final = "short"


class _Cause(NamedTuple):
    """Something that lasted until ``until``: overlaps begin at ``begins`` or later, and end at ``ends`` if in time."""

    since: float
    begins: float
    until: float
    ends: float


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

    A machine that was late makes causes of its own, and makes what others have led to last longer.
    """

    refuses_on_outage: bool
    is_steady: bool = False
    left_s: float = 3.5
    late_s: float = 4.0
    short_s: float = 0.25

    def excuse(self, faults: Sequence[Fault], overlap: Overlap, lates: Sequence[Late] = ()) -> str:
        """Return what excuses an overlap: `SHORT`, `FAULTS`, or which places were late for how long; "" if nothing."""
        if overlap.length_s <= self.short_s:
            return SHORT
        if self.is_steady:
            return ""
        causes = [self._of_fault(fault) for fault in faults if self._concerns(fault, overlap)]
        if self._explains(causes, overlap):
            return FAULTS
        return self._lateness(causes, overlap, on_path(lates, overlap.instances))

    def _lateness(self, causes: list[_Cause], overlap: Overlap, lates: Sequence[Late]) -> str:
        """Return which lateness excuses an overlap that these causes alone do not."""
        since, until = overlap.since - self.short_s, overlap.until + self.short_s
        if self.refuses_on_outage:
            lates = [late for late in lates if late.place != REDIS]
        late_s = written_late_s(lates, overlap.instances, since, until)
        if late_s and overlap.length_s <= late_s + self.short_s:
            return _words(lates, since, until)
        left_s = self.left_s if self.refuses_on_outage else OUTAGE_S
        causes = causes + [
            _Cause(span.since, span.since + left_s, span.until, span.until + RECOVERS_S)
            for span in outages(lates, overlap.instances)
        ]
        if not self._explains(causes, overlap, lates):
            return ""
        first = min(cause.since for cause in causes if cause.ends > since - self.late_s)
        return _words(lates, min(first, since), until)

    def _explains(self, causes: Sequence[_Cause], overlap: Overlap, lates: Sequence[Late] = ()) -> bool:
        """Tell whether a chain of causes has lasted for all of an overlap."""
        begins, until, ends = math.inf, -math.inf, -math.inf
        for cause in sorted(causes):
            if cause.since > extended(until, ends, lates):
                begins = math.inf
            begins, until, ends = min(begins, cause.begins), max(until, cause.until), max(ends, cause.ends)
            if begins - self.short_s <= overlap.since and overlap.until <= extended(until, ends, lates):
                return True
        return False

    def _of_fault(self, fault: Fault) -> _Cause:
        begins = fault.since + (self.left_s if self._keeps_lease(fault) else 0.0)
        return _Cause(fault.since, begins, fault.until, fault.until + self.late_s)

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
    """The seats and faults of a run, and when the machine was late."""

    seats: list[Seat] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lates: list[Late] = field(default_factory=list)

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

    def judged(self, rules: Rules) -> list[tuple[Overlap, str]]:
        """Return the overlaps, each with what excuses it, or ""."""
        return [(overlap, rules.excuse(self.faults, overlap, self.lates)) for overlap in self.overlaps()]

    def violations(self, rules: Rules) -> list[Overlap]:
        """Return the overlaps that nothing excuses."""
        return [overlap for overlap, excuse in self.judged(rules) if not excuse]


def _words(lates: Sequence[Late], since: float, until: float) -> str:
    """Return for people which places were late in a time, and for how long."""
    found: dict[str, float] = {}
    for late in lates:
        if late.since < until and since < late.until:
            found[late.place] = found.get(late.place, 0.0) + late.length_s
    return ", ".join(f"{place} late for {late_s:.2f} s" for place, late_s in sorted(found.items()))


def longest(overlaps: Sequence[Overlap]) -> float:
    """Return the length of the longest overlap, 0 if there is none."""
    return max((overlap.length_s for overlap in overlaps), default=0.0)
