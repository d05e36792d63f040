"""PURE: how long to work on what a peer sent that may be gone by now.

A peer that floods and leaves has megabytes on their way, in its own kernel's buffers and in ours. Its end arrives
behind all of them, so where they are expensive to process the relay would be busy for long after the last attacker
left. Hence a peer that takes turns (`pyryrelay.runtime.fair_queue`) and whose bytes are expensive is sent something now
and then: a socket that no process has open any more answers with a reset. Once a peer has hung up, `REST_S` is all that
is spent on what it left, beyond what the same number of good bytes would cost.

Honest peers that send their last frames and leave are not cut off: their bytes are cheap.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["ASK_AFTER_S", "ASK_S", "EXPENSIVE_BYTE_S", "REST_S", "TURN_S", "HangupBudget"]

EXPENSIVE_BYTE_S: Final = 50e-9
"""Good frames of 64 bytes cost a fifth of it for each byte, and empty fragments ten times as much."""
TURN_S: Final = 0.0001
"""What a turn may cost whatever it holds."""
ASK_S: Final = 0.5
ASK_AFTER_S: Final = 0.003
"""A peer is asked so often at most, and after so much expensive work at least."""
REST_S: Final = 0.005


class HangupBudget:
    """One peer that takes turns."""

    __slots__ = ("_asked_at_s", "_expensive_s", "has_hung_up")

    def __init__(self) -> None:
        """Begin with a peer that is there."""
        self.has_hung_up = False
        self._expensive_s = 0.0
        self._asked_at_s = -inf

    def look(self, has_hung_up: bool) -> bool:
        """Note whether the peer has hung up; whether to work on what it has sent."""
        if has_hung_up and not self.has_hung_up:
            self.has_hung_up, self._expensive_s = True, 0.0
        return not self.has_hung_up or self._expensive_s < REST_S

    def worked(self, spent_s: float, size: int, now: float) -> bool:
        """A turn took so long for so many bytes. True if it is time to send something."""
        self._expensive_s += max(0.0, spent_s - TURN_S - size * EXPENSIVE_BYTE_S)
        if self.has_hung_up or self._expensive_s < ASK_AFTER_S or now - self._asked_at_s < ASK_S:
            return False
        self._asked_at_s, self._expensive_s = now, 0.0
        return True
