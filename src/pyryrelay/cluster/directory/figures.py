"""What the directory counts, for metrics and for operators. Times are seconds, and totals count since the start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["OUTCOMES", "QUESTIONS", "Figures"]

QUESTIONS: Final = ("claim", "look")
OUTCOMES: Final = ("here", "owner", "nobody", "wait", "down", "forged")
"""How a claim or a look ended. ``wait``: the data set was new for longer than a client can wait. ``forged``: the entry
named an instance whose address is not proven."""


@dataclass(slots=True)
class Figures:
    """See the module's docstring."""

    asked: dict[tuple[str, str], int] = field(
        default_factory=lambda: {(question, outcome): 0 for question in QUESTIONS for outcome in OUTCOMES}
    )
    lost: int = 0
    """Keys that were held here, and that another instance holds by right."""
    asserted: int = 0
    released: int = 0
    outages: int = 0

    def count(self, question: str, outcome: str) -> None:
        """Count one answer."""
        self.asked[question, outcome] += 1
