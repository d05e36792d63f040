"""When to accept again: as soon as a connection waits, or in a flood by the clock. Sans-I/O.

A server that is faster than its clients is woken up for every single connection. Then a turn of the reactor, waking up
and going to sleep cost more than an answer does. Network drivers have the same problem with packets, and the same
solution: under load they turn interrupts off, and poll. Connections then wait for up to a millisecond, which is less
than a batch takes, and an attempt costs little more than half.

Pacing begins when `SAMPLE` connections arrived faster than `PACED_PER_S`, and ends with the first poll that finds fewer
than `QUIET_ACCEPTS`. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["PACED_PER_S", "PACING_INTERVAL_S", "QUIET_ACCEPTS", "SAMPLE", "AcceptPacing"]

PACED_PER_S: Final = 4000
SAMPLE: Final = 64
PACING_INTERVAL_S: Final = 0.001
"""Time between two polls: the smallest unit of epoll."""
QUIET_ACCEPTS: Final = 3
"""With fewer than these in one poll, pacing ends."""
_SAMPLE_S: Final = SAMPLE / PACED_PER_S


class AcceptPacing:
    """Whether to accept by the clock (`is_on`)."""

    __slots__ = ("_counted", "_since_s", "is_on")

    def __init__(self) -> None:
        self.is_on = False
        self._counted = 0
        self._since_s = -inf

    def accepted(self, count: int, now: float) -> None:
        """Note how many connections were accepted in one poll."""
        if self.is_on:
            self.is_on = count >= QUIET_ACCEPTS
            return
        self._counted += count
        if self._counted >= SAMPLE:
            self.is_on = now - self._since_s < _SAMPLE_S
            self._counted, self._since_s = 0, now
