"""What `/metrics` shows of events between hosts: totals since the start. The keys are fixed words. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pyryrelay.nostr.policies.refusal import EVENT_WORDS
from pyryrelay.nostr.storage.interface import Outcome

__all__ = ["MALFORMED", "OUTCOMES", "TAKEN_OUTCOMES", "Totals"]

MALFORMED: Final = "malformed"
"""The word for what is no event at all, or not one of the class that its host says it is."""
OUTCOMES: Final = {
    Outcome.STORED: "stored",
    Outcome.DUPLICATE: "duplicate",
    Outcome.SUPERSEDED: "superseded",
    Outcome.DELETED: "deleted",
    Outcome.FAILED: "failed",
}
"""The words for what the store has made of an event."""
TAKEN_OUTCOMES: Final = tuple(
    dict.fromkeys((*OUTCOMES.values(), "ephemeral", "late", "unknown", MALFORMED, *EVENT_WORDS))
)
"""Those words, and: delivered without being stored, too old for that, of a later release, and the words of refusals."""


@dataclass(slots=True)
class Totals:
    """The totals of one process. ``taken_in`` is by outcome."""

    announced: int = 0
    ephemeral_announced: int = 0
    ephemeral_dropped: int = 0
    """Ephemeral events that could not be announced."""
    too_large: int = 0
    """Events that are too large for an entry, so that no other host gets them."""
    asked_again: int = 0
    """Times that others were asked for events that a server may have lost before they were read here."""
    missed: int = 0
    """Times that they could not announce all of them again."""
    taken_in: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TAKEN_OUTCOMES, 0))
