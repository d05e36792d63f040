"""PURE: limit the work for a peer that may be gone.

A peer that floods the relay and leaves has megabytes on their way, in its own kernel's buffers and in ours. Its end
arrives behind all of them. If they are expensive to process, the relay would be busy long after the peer has left.
Therefore a peer that takes turns (`pyryrelay.runtime.fair_queue`) and whose bytes are expensive is sent a pong now and
then: if no process has the peer's socket open any more, its kernel answers with a reset. Once a peer has hung up, only
`AFTER_HANGUP_S` is spent on what it sent before, beyond what the same number of ordinary bytes would cost.

Honest peers that send their last frames and leave are not cut off: their bytes are cheap.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["AFTER_HANGUP_S", "CHEAP_TURN_S", "EXPENSIVE_BYTE_S", "PONG_AFTER_S", "PONG_INTERVAL_S", "HangupLimit"]

EXPENSIVE_BYTE_S: Final = 50e-9
"""What a byte may cost. For frames of 64 bytes each byte costs a fifth of it, for empty fragments ten times as much."""
CHEAP_TURN_S: Final = 0.0001
"""What a turn may cost besides, whatever it processes."""
PONG_INTERVAL_S: Final = 0.5
"""Minimum interval between two pongs."""
PONG_AFTER_S: Final = 0.003
"""How much expensive work there must be before a pong is sent."""
AFTER_HANGUP_S: Final = 0.005
"""How much expensive work is done for a peer that has hung up."""


class HangupLimit:
    """The limit for one peer that takes turns."""

    __slots__ = ("_expensive_s", "_pong_at_s", "has_hung_up")

    def __init__(self) -> None:
        """Begin with a peer that is connected."""
        self.has_hung_up = False
        self._expensive_s = 0.0
        self._pong_at_s = -inf

    def may_work(self, has_hung_up: bool) -> bool:
        """Record whether the peer has hung up, and return whether to process what it has sent."""
        if has_hung_up and not self.has_hung_up:
            self.has_hung_up, self._expensive_s = True, 0.0
        return not self.has_hung_up or self._expensive_s < AFTER_HANGUP_S

    def record(self, spent_s: float, size: int, now: float) -> bool:
        """Record that a turn took ``spent_s`` for ``size`` bytes. Returns True if it is time to send a pong."""
        self._expensive_s += max(0.0, spent_s - CHEAP_TURN_S - size * EXPENSIVE_BYTE_S)
        if self.has_hung_up or self._expensive_s < PONG_AFTER_S or now - self._pong_at_s < PONG_INTERVAL_S:
            return False
        self._pong_at_s, self._expensive_s = now, 0.0
        return True
