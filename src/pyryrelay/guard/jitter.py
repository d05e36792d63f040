"""Jitter: a random delay on top of a wait, so that clients that were told the same moment do not all come at it.

The gate tells each client that waits for a token a moment of its own. Where it cannot, as for caps, or where you tell
many clients the same yourself, spread them. The random number is an argument, between 0 and 1, as the guard has no
source of randomness; `random.random()` will do. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from pyryrelay.guard.errors import LimitError

__all__ = ["Jitter"]


@dataclass(frozen=True, slots=True)
class Jitter:
    """A delay of at least `min_s` and less than `min_s` + `spread_s`, each as likely as the other.

    Raises `LimitError` for numbers that are negative or endless.
    """

    spread_s: float
    min_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would bring clients back too early, or never."""
        for name, seconds in (("spread_s", self.spread_s), ("min_s", self.min_s)):
            if not 0.0 <= seconds < inf:
                raise LimitError(f"jitter {name} {seconds!r} is out of range: use 0 or more seconds")

    def added_to(self, wait_s: float, fraction: float) -> float:
        """Return the wait with a delay on top; `fraction` is your random number.

        Raises `LimitError` for one that is not between 0 and 1.
        """
        if not 0.0 <= fraction <= 1.0:
            raise LimitError(f"fraction {fraction!r} is out of range: use random.random()")
        return wait_s + self.min_s + self.spread_s * fraction
