"""What is counted about the entries on one server. Totals count since the start."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Figures"]


@dataclass(slots=True)
class Figures:
    """See the module's docstring."""

    added: int = 0
    failed: int = 0
    """Entries that were perhaps not added."""
    read: int = 0
    """Entries of others."""
    unreadable: int = 0
    """Entries that no member has made for this stream, or that are too long."""
    missed: int = 0
    """Times that the server had not kept all entries until they were read."""
    begun_anew: int = 0
    """Times that the server had lost entries."""
