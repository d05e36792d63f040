"""When the switch was late: it did not run, or frames waited for it. PURE. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["ALL", "LEAST_S", "RESEND_S", "TICK_S", "Lateness"]

ALL: Final = 0
"""Stands for all machines."""
TICK_S: Final = 0.05
LEAST_S: Final = 0.1
RESEND_S: Final = 0.2
"""After what time a kernel sends a segment again whose loss nothing else tells (RFC 6298 has 1 s, Linux 0.2 s)."""


class Lateness:
    """Collects the times, of each machine those with what comes from there, and those in which nothing went on."""

    def __init__(self, now: float, machines: Iterable[int]) -> None:
        self._times: dict[int, list[tuple[float, float]]] = {number: [] for number in (ALL, *machines)}
        self._ticked_at = now

    def times(self) -> list[tuple[int, float, float]]:
        """Return machine, since, until of all times. Those of one are in order and apart."""
        return [(number, *times) for number, some in self._times.items() for times in some]

    def is_due(self, now: float) -> bool:
        """Tell whether it is time for a tick."""
        return not 0.0 <= now - self._ticked_at < TICK_S

    def ticked(self, now: float) -> None:
        """Note that the switch runs."""
        self._note(ALL, self._ticked_at + TICK_S, now)
        self._ticked_at = now

    def taken(self, machine: int, came_at: float, now: float) -> None:
        """Note that a frame was taken which had come at a time."""
        self._note(machine, came_at, now)

    def lost(self, machine: int, now: float) -> None:
        """Note that frames were lost since the last tick, because too many waited: they come again later."""
        self._note(machine, now - TICK_S, now + RESEND_S)

    def _note(self, machine: int, since: float, until: float) -> None:
        if until - since < LEAST_S:
            return
        times = self._times[machine]
        while times and times[-1][1] >= since - TICK_S:
            before = times.pop()
            since, until = min(before[0], since), max(before[1], until)
        times.append((since, until))
