"""Tats beside those that decide: what the buckets would hold without the tokens that some processes have spent.

Such a tat is kept only while it is earlier than the one that decides; without one here, both are the same. So most
buckets take no memory for it, and a process that hears nothing of others keeps none.

Why forgetting is right: the owner rotates when it rotates its buckets, so a tat is kept at least until the bucket that
it belongs to is full, and then both are in the past. Why memory is bounded: there is at most one for each bucket.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from pyryrelay.guard.rate.generations import Generations
from pyryrelay.guard.rate.tables import Table

__all__ = ["EarlierTats"]

K = TypeVar("K", bound=Hashable)


class EarlierTats(Generic[K]):
    """Earlier tats by the key of the bucket. ``is_used`` is false while there is surely none."""

    __slots__ = ("_kept", "is_used")

    def __init__(self, new_table: Callable[[], Table[K, float]]) -> None:
        """Start without any."""
        self._kept: Generations[K, float] = Generations(new_table)
        self.is_used = False

    def __len__(self) -> int:
        """Count all keys that take memory, including garbage that awaits disposal."""
        return len(self._kept)

    def get(self, key: K) -> float | None:
        """Return the earlier tat of a bucket, None if it is the one that decides."""
        tat = self._kept.young.get(key)
        return self._kept.old.get(key) if tat is None else tat

    def keep(self, key: K, tat: float, deciding_tat: float) -> None:
        """Keep a tat, if it is earlier than the one that decides."""
        self._kept.old.pop(key)
        if tat < deciding_tat:
            self._kept.young[key] = tat
            self.is_used = True
        else:
            self._kept.young.pop(key)

    def rotate(self, now: float) -> None:
        """Begin a new generation, when the buckets do."""
        self._kept.rotate(now)
        self.is_used = bool(self._kept.old)

    def dispose(self, most: int) -> None:
        """Free at most so many keys that were forgotten."""
        self._kept.dispose(most)
