"""When to accept again: at once while few come, by the clock in a rush. Sans-I/O.

A server that is quicker than its clients wakes up for every single one of them, and then a turn of the reactor, the
waking and the going to sleep cost more than an answer does. Network drivers have the same trouble with packets, and the
same remedy: in a rush they ask for no more interrupts, and look every now and then how many have come. Everybody waits
for a millisecond then, which is less than what a batch takes; and an attempt costs little more than half.

A rush begins when `SAMPLE` connections came faster than `PACED_PER_S`, and ends with the first look that finds next to
nobody. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["LOOK_S", "PACED_PER_S", "QUIET_ACCEPTS", "SAMPLE", "AcceptPacing"]

PACED_PER_S: Final = 4000
SAMPLE: Final = 64
LOOK_S: Final = 0.001
"""Between two looks in a rush: the least that epoll counts in."""
QUIET_ACCEPTS: Final = 3
"""With fewer than these in one look the rush is over."""
_SAMPLE_S: Final = SAMPLE / PACED_PER_S


class AcceptPacing:
    """Whether there is a rush (`is_on`)."""

    __slots__ = ("_counted", "_since_s", "is_on")

    def __init__(self) -> None:
        self.is_on = False
        self._counted = 0
        self._since_s = -inf

    def came(self, count: int, now: float) -> None:
        """So many have been accepted now, in one look."""
        if self.is_on:
            self.is_on = count >= QUIET_ACCEPTS
            return
        self._counted += count
        if self._counted >= SAMPLE:
            self.is_on = now - self._since_s < _SAMPLE_S
            self._counted, self._since_s = 0, now
