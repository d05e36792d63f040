"""What a store's read side does, whatever the database (spec sections 6 to 8).

Queries run in steps, each of which is a short read of its own: between steps nothing is held in the database, and what
was deleted meanwhile is not returned. Rules of a query:

- It sees the events whose ``seq`` is at most the ``snapshot`` taken when it was made, and only what its view may see.
- Work units are counted as they arise: one for each index entry examined, or looked for in vain, and one for each event
  loaded. A step looks at the clock and at the work after each small piece.
- All methods raise ``StoreError`` if the database cannot be read; a query ends with that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.visibility import View

__all__ = ["Counting", "Hint", "ReadableStore", "Scan", "ScanLimits"]

Hint: TypeAlias = Literal["finish", "more"] | None
"""What EOSE says about stored events that were not sent (NIP-67); None if it is not known."""


class ScanLimits(NamedTuple):
    """What one scan may return and cost. None is unlimited."""

    max_limit: int
    """The most events of one filter."""
    default_limit: int
    """The most events of a filter without a limit."""
    max_results: int | None
    """The most events of all filters together."""
    max_work: int | None
    """In work units."""
    max_seq: int | None = None
    """The highest ``seq`` of the snapshot."""


class Scan(Protocol):
    """The stored events of a REQ: newest first, then the smaller id, each once."""

    snapshot: int
    done: bool
    hint: Hint
    """Known when the scan is done."""
    over_work: bool
    """Whether the scan ended because of ``max_work``."""

    @property
    def work(self) -> int:
        """The work units used up to now."""

    def step(self, is_over: Callable[[], bool], max_bytes: int) -> list[bytes]:
        """Return the next events as canonical JSON: up to ``max_bytes``, or a single larger one.

        The step ends early, perhaps without an event, when ``is_over`` returns true.
        """

    def look_at(self, wall_s: int) -> None:
        """Let the next steps leave out what has expired at this unix time."""

    def pause(self) -> None:
        """Free most of the memory, as the next step may be far away; it has to look up its place again."""


class Counting(Protocol):
    """The number of stored events that a COUNT asks for, each counted once, whatever the limits of its filters."""

    done: bool
    over_work: bool
    count: int
    is_approximate: bool
    """Whether there are more than ``count``."""
    hll: str | None
    """The HyperLogLog registers of the authors, if they were asked for, in 512 hex digits; known at the end."""

    @property
    def work(self) -> int:
        """The work units used up to now."""

    def step(self, is_over: Callable[[], bool]) -> None:
        """Count on, until ``is_over`` returns true."""


class ReadableStore(Protocol):
    """The read side of a store. Any number of processes may have it, each on one thread."""

    def snapshot(self) -> int:
        """Return the highest ``seq`` given to an event so far."""

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return which of up to 1,000 ids are stored."""

    def scan(self, filters: Sequence[Filter], view: View, limits: ScanLimits) -> Scan:
        """Begin to look for the events of a REQ."""

    def count(
        self, filters: Sequence[Filter], view: View, max_count: int, hll: bool, max_work: int | None = None
    ) -> Counting:
        """Begin to count up to ``max_count`` events; ``hll`` asks for registers where there can be any."""

    def close(self) -> None:
        """Close the database."""
