"""Which overlaps a late machine explains, and how much of a run nothing could be told of. PURE. Times are seconds.

An instance takes Redis for away if an answer takes 0.5 s. It serves claims alone from then on (with the policy
``local``), until it has connected again and told the directory what it holds. So the *path* to Redis (Redis itself,
the switch, the whole machine, and the instance) must have been late for about that long without a pause, and an overlap
that this explains begins afterwards and ends soon after the path works again. Lateness while instances recover, from
this or from a fault, makes that longer by as much as it lasts. Any other overlap may be as long as one of its two
instances was late meanwhile: that one wrote its line so much later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from tests.chaos.lateness.late import ALL, MACHINE, REDIS, Late, Span, from_machine, spans, together_s

__all__ = [
    "LEAST_BUSY_S",
    "MOST_SHARE",
    "OUTAGE_S",
    "RECOVERS_S",
    "Window",
    "alone",
    "blind_s",
    "extended",
    "is_busy",
    "on_path",
    "outages",
    "written_late_s",
]

OUTAGE_S: Final = 0.4
"""For how long a path must be late until instances can take Redis for away: 0.5 s, less what is not measured."""
ALONE_S: Final = 1.6
"""The same if only the instance was late: it reads what has come before it gives up, for up to 2 s."""
GAP_S: Final = 0.1
"""How long a path may work in between."""
RECOVERS_S: Final = 1.5
"""How long after an outage that is short an overlap may last: 1 s until the next attempt, 0.25 s until the instance
looks after its lease, and the time to tell the directory what it holds."""
MOST_SHARE: Final = 0.01
LEAST_BUSY_S: Final = 2.5
"""One outage, which may not cost a short run its verdict."""


class Window(NamedTuple):
    """A time in which something can have happened."""

    since: float
    until: float


def _is(place: str, instance: str) -> bool:
    """Tell whether a place is an instance; its workers have a digit more."""
    return instance.startswith(place)


def _is_needed(place: str, instances: Sequence[str]) -> bool:
    """Tell whether a place is between some instances and Redis."""
    if place in ALL or place == from_machine(REDIS):
        return True
    return any(place == from_machine(name.rstrip("0123456789")) for name in instances)


def on_path(lates: Iterable[Late], instances: Iterable[str]) -> list[Late]:
    """Return the lateness that concerns some instances: their own, and that of all they need."""
    names = tuple(instances)
    return [late for late in lates if _is_needed(late.place, names) or any(_is(late.place, name) for name in names)]


def outages(lates: Iterable[Late], instances: Iterable[str]) -> list[Span]:
    """Return the times in which Redis seemed to be away to one of some instances."""
    lates = list(lates)
    found = set()
    for name in instances:
        for span in spans(on_path(lates, [name]), GAP_S):
            is_alone = all(_is(place, name) for place in span.places)
            if span.covered_s >= (ALONE_S if is_alone else OUTAGE_S):
                found.add(span)
    return sorted(found)


def alone(lates: Iterable[Late], instances: Iterable[str]) -> list[Span]:
    """Return the times in which Redis seemed to be away to some instance, joined where they overlap."""
    return spans(Late("", span.since, span.until) for span in outages(lates, instances))


def extended(until: float, ends: float, lates: Sequence[Late]) -> float:
    """Return when instances have recovered of what lasted until ``until``, which takes until ``ends`` on time."""
    for span in spans(lates):
        if span.since > ends:
            break
        ends += max(0.0, span.until - max(span.since, until))
    return ends


def written_late_s(lates: Iterable[Late], instances: Iterable[str], since: float, until: float) -> float:
    """Return for how long one of some instances was late in a time."""
    names = tuple(instances)
    own = [late for late in lates if late.place == MACHINE or any(_is(late.place, name) for name in names)]
    meanwhile = [late for late in own if late.since < until and since < late.until]
    return together_s(Window(max(late.since, since), min(late.until, until)) for late in meanwhile)


def blind_s(lates: Sequence[Late], instances: Iterable[str]) -> float:
    """Return for how long a run was blind: an overlap that was the relay's fault would have been excused then."""
    names = tuple(instances)
    windows = [Window(late.since, late.until) for late in on_path(lates, names)]
    windows += [Window(span.since, span.until + RECOVERS_S) for span in outages(lates, names)]
    return together_s(windows)


def is_busy(blind: float, seconds: float) -> bool:
    """Tell whether a run of some length was blind for too long: then it says nothing."""
    return blind > max(LEAST_BUSY_S, MOST_SHARE * seconds)
