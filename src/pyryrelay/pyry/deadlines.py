"""Deadlines by key, earliest first: a heap, and a dict that tells which entries of the heap are valid. PURE.

Invariants: a key has at most one deadline. Entries that were replaced or dropped stay in the heap for a while, but are
never much more numerous than the valid ones.

Units: seconds on the caller's monotonic clock. Every method takes amortised O(log keys) time.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

__all__ = ["Deadlines"]


class Deadlines:
    """At most one deadline per key."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._count = 0

    def __len__(self) -> int:
        """Return the number of entries in memory, invalid ones included."""
        return len(self._heap)

    def set(self, key: str, at: float) -> None:
        """Set or replace the deadline of ``key``."""
        self._count += 1
        self._due[key] = (at, self._count)
        heappush(self._heap, (at, self._count, key))
        self._compact()

    def drop(self, key: str) -> None:
        """Forget the deadline of ``key``, if it has one."""
        self._due.pop(key, None)
        self._compact()

    def first(self) -> float | None:
        """Return the earliest deadline, None if there is none."""
        while self._heap and not self._is_live(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> str | None:
        """Remove and return the earliest key whose deadline is ``now`` or earlier, None if there is none."""
        first = self.first()
        if first is None or first > now:
            return None
        key = heappop(self._heap)[2]
        del self._due[key]
        return key

    def _is_live(self, entry: tuple[float, int, str]) -> bool:
        at, count, key = entry
        return self._due.get(key) == (at, count)

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._due) + 16:
            self._heap = [(at, count, key) for key, (at, count) in self._due.items()]
            heapify(self._heap)
