"""Forgetting by age in bounded steps: keys in two generations, of which the older one is dropped whole.

Keys are written to the *young* generation. `Generations.rotate` makes young old and old garbage, so a key that is not
written again is forgotten at the second rotation after it was. No search for what is due is needed: eviction is O(1),
and garbage is freed later, as much at a time as the caller has time for.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from math import inf
from typing import Generic, TypeVar

from pyryrelay.guard.rate.tables import Table

__all__ = ["Generations"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Generations(Generic[K, V]):
    """Two tables from keys to values, ``young`` and ``old``, which their owner reads and writes.

    ``new_table`` makes an empty one. The owner keeps a key in one of the two at a time. ``len()`` counts all keys that
    take memory, including garbage that awaits disposal.
    """

    __slots__ = ("_dying", "_dying_count", "_new_table", "old", "rotated_at", "young")

    def __init__(self, new_table: Callable[[], Table[K, V]]) -> None:
        """Start empty; the first rotation is overdue."""
        self._new_table = new_table
        self.young = new_table()
        self.old = new_table()
        self.rotated_at = -inf
        self._dying: deque[Table[K, V]] = deque()
        self._dying_count = 0

    def __len__(self) -> int:
        return len(self.young) + len(self.old) + self._dying_count

    def rotate(self, now: float) -> None:
        """Begin a new generation; what is old becomes garbage."""
        if self.old:
            self._dying.append(self.old)
            self._dying_count += len(self.old)
        self.old = self.young
        self.young = self._new_table()
        self.rotated_at = now

    def dispose(self, budget: int) -> None:
        """Free at most ``budget`` keys: freeing a big table at once would take many milliseconds."""
        while self._dying and budget:
            oldest = self._dying[0]
            count = min(len(oldest), budget)
            oldest.drop(count)
            budget -= count
            self._dying_count -= count
            if not oldest:
                self._dying.popleft()
