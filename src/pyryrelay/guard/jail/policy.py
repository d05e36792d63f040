"""How many refusals jail a client, and for how long. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from pyryrelay.guard.errors import LimitError

__all__ = ["MAX_DURATION_S", "MAX_REFUSALS", "JailPolicy"]

MAX_DURATION_S: Final = 366 * 86_400.0
"""Longest time that a client can be jailed for."""

MAX_REFUSALS: Final = 10_000
"""Most refusals that a policy may ask for: the time of each is kept."""

_MAX_DOUBLINGS: Final = 64


@dataclass(frozen=True, slots=True)
class JailPolicy:
    """``refusals`` within ``within_s`` jail for ``first_s``, then for twice as long each time, up to ``longest_s``.

    Raises `LimitError` for numbers under which the jail would hold all clients or none.
    """

    refusals: int = 60
    within_s: float = 60.0
    first_s: float = 600.0
    longest_s: float = 86_400.0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if not 2 <= self.refusals <= MAX_REFUSALS:
            raise LimitError(f"jail refusals {self.refusals!r} are out of range: use 2 to {MAX_REFUSALS}")
        for limit in fields(self)[1:]:
            seconds = getattr(self, limit.name)
            if not 1 <= seconds <= MAX_DURATION_S:
                raise LimitError(f"jail {limit.name} {seconds!r} is out of range: use 1 to {MAX_DURATION_S:.0f}")
        if self.longest_s < self.first_s:
            raise LimitError(f"jail longest_s {self.longest_s!r} is shorter than first_s {self.first_s!r}: raise it")

    def duration_s(self, times: int) -> float:
        """Return how long the ``times``-th sentence in a row lasts, and how long it is remembered afterwards.

        0 for ``times`` 0: there was no sentence by strikes, so there is nothing to remember.
        """
        if times < 1:
            return 0.0
        # Beyond this many doublings the shortest duration exceeds the longest.
        return min(self.longest_s, self.first_s * 2.0 ** min(times - 1, _MAX_DOUBLINGS))
