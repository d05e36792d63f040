"""Jitter: a random delay on top of a wait, so that clients that were told the same moment do not all come at it.

The gate tells each client that waits for a token a moment of its own. For caps it cannot, and there, or where you tell
many clients the same moment yourself, spread them. The random number is an argument from 0 to 1, because the guard has
no source of randomness; use `random.random`.

Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from pyryrelay.guard.errors import LimitError

__all__ = ["Jitter"]


@dataclass(frozen=True, slots=True)
class Jitter:
    """A delay between ``min_s`` and ``min_s + spread_s``, uniformly distributed.

    Raises `LimitError` for numbers that are negative or infinite.
    """

    spread_s: float
    min_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse delays that bring clients back too early, or never."""
        for name, seconds in (("spread_s", self.spread_s), ("min_s", self.min_s)):
            if not 0.0 <= seconds < inf:
                raise LimitError(f"jitter {name} {seconds!r} is out of range: use 0 or more seconds")

    def added_to(self, wait_s: float, fraction: float) -> float:
        """Return the wait with a delay on top; ``fraction`` is your random number.

        Raises `LimitError` if it is not from 0 to 1.
        """
        if not 0.0 <= fraction <= 1.0:
            raise LimitError(f"fraction {fraction!r} is out of range: use random.random()")
        return wait_s + self.min_s + self.spread_s * fraction
