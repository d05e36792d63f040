"""What is counted about spliced connections. Totals count since the start."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pyryrelay.cluster.splice.ticket import TicketProblem

__all__ = ["ArrivalProblem", "Figures"]


class ArrivalProblem(StrEnum):
    """Why a connection to ``--cluster-listen`` is cut off, besides a `TicketProblem`."""

    FOREIGN = "foreign"  # of no peer
    NO_TICKET = "no_ticket"
    LATE = "late"  # or left before its head was complete


@dataclass(slots=True)
class Figures:
    """See the module's docstring."""

    begun: int = 0
    """Connections that were accepted here, and are served elsewhere."""
    failed: int = 0
    """Connections whose owner could not be reached."""
    redirected: int = 0
    bytes: int = 0
    arrived: int = 0
    """Connections that were accepted elsewhere, and are served here."""
    sent_back: int = 0
    """Connections that do not belong here either."""
    cut_off: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*ArrivalProblem, *TicketProblem), 0))
