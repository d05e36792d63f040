"""When the machine was late: what was measured, and for how long in all. PURE. Times are seconds of one clock.

A *place* is late while it could not work although it had to: it waited for a processor, or what came to it was not
taken. That says nothing about the programs there, so it may excuse what they could not do meanwhile; see `excuses`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

__all__ = [
    "ALL",
    "DRIVER",
    "LEAST_S",
    "MACHINE",
    "REDIS",
    "SWITCH",
    "Interval",
    "Late",
    "Meter",
    "Span",
    "from_machine",
    "spans",
    "together_s",
    "without",
]

MACHINE: Final = "machine"
"""All places at once: no process was run, not even one that only sleeps."""
REDIS: Final = "redis"
SWITCH: Final = "switch"
ALL: Final = frozenset({MACHINE, REDIS, SWITCH})
"""Places that all instances need."""
DRIVER: Final = "driver"
"""What makes the faults and is the peers. Its lateness is shown, and excuses nothing."""
LEAST_S: Final = 0.1
"""Shorter lateness is not noted."""


def from_machine(name: str) -> str:
    """Return the place where frames of a machine wait for the switch."""
    return f"switch from {name}"


class Interval(Protocol):
    """What lasts for a while."""

    @property
    def since(self) -> float: ...
    @property
    def until(self) -> float: ...


class Late(NamedTuple):
    """A place was late from ``since`` to ``until``. Places are instances, by their names, and those named above."""

    place: str
    since: float
    until: float

    @property
    def length_s(self) -> float:
        """How long."""
        return self.until - self.since


class Span(NamedTuple):
    """Some of ``places`` were late for ``covered_s`` in this time, one after the other or at once."""

    since: float
    until: float
    covered_s: float
    places: frozenset[str]


def spans(lates: Iterable[Late], gap_s: float = 0.0) -> list[Span]:
    """Return lateness in order, joined where it overlaps or is at most ``gap_s`` apart."""
    found: list[Span] = []
    for late in sorted(lates, key=lambda late: late.since):
        if not found or late.since > found[-1].until + gap_s:
            found.append(Span(late.since, late.until, late.length_s, frozenset({late.place})))
            continue
        last = found[-1]
        more_s = max(0.0, late.until - max(late.since, last.until))
        until = max(last.until, late.until)
        found[-1] = Span(last.since, until, last.covered_s + more_s, last.places | {late.place})
    return found


def together_s(intervals: Iterable[Interval]) -> float:
    """Return for how long there is at least one of these."""
    return sum(span.covered_s for span in spans(Late("", one.since, one.until) for one in intervals))


def without(late: Late, known: Collection[Interval]) -> list[Late]:
    """Return what is left of a lateness without the times in which something was done to the place on purpose.

    Pieces that are shorter than `LEAST_S` are left out.
    """
    left = [late]
    for one in known:
        pieces = [
            piece
            for whole in left
            for piece in (
                whole._replace(until=min(whole.until, one.since)),
                whole._replace(since=max(whole.since, one.until)),
            )
        ]
        left = [piece for piece in pieces if piece.until > piece.since] if _meet(late, one) else left
    return [piece for piece in left if piece.length_s >= LEAST_S]


def _meet(one: Interval, other: Interval) -> bool:
    return one.since < other.until and other.since < one.until


class Meter:
    """Notes when a process waited for a processor, from how long it has done so since its start, which only grows.

    That sum grows when the wait is over, so a wait may be longer than the time since the last look.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._before_s: float | None = None

    def next(self, at: float, waited_s: float) -> Sequence[Late]:
        """Return what is new at a time."""
        more_s = 0.0 if self._before_s is None else waited_s - self._before_s
        self._before_s = waited_s
        return [Late(self._place, at - more_s, at)] if more_s >= LEAST_S else []
