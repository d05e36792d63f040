"""Keys in the order of a time that each of them has, in a sorted list. Times are seconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from math import inf

from pyryrelay.guard.address.keys import AddressKey

__all__ = ["TimeOrder"]


class TimeOrder:
    """Keys by their times, of which a key may have one."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[float, AddressKey]] = ()) -> None:
        """Begin with these times and keys."""
        self._items = sorted(items)

    def add(self, time_s: float, key: AddressKey) -> None:
        """Add a key."""
        insort(self._items, (time_s, key))

    def remove(self, time_s: float, key: AddressKey) -> None:
        """Remove a key, which has that time."""
        del self._items[bisect_left(self._items, (time_s, key))]

    def first(self) -> AddressKey:
        """Return the key with the earliest time; there must be one."""
        return self._items[0][1]

    def count_due(self, now: float) -> int:
        """Count the keys whose time is ``now`` or earlier."""
        return bisect_right(self._items, (now, inf))

    def due(self, now: float, most: int) -> list[AddressKey]:
        """Return at most ``most`` keys whose time is ``now`` or earlier, earliest first."""
        return [key for _, key in self._items[: min(most, self.count_due(now))]]

    def latest(self, now: float, most: int) -> list[AddressKey]:
        """Return at most ``most`` keys whose time is later than ``now``, latest first."""
        return [key for _, key in reversed(self._items[max(self.count_due(now), len(self._items) - most) :])]
