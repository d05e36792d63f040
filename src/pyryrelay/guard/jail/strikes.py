"""Exact counting of events in a sliding window, for many keys in bounded memory.

`Strikes.add` counts the events that happened less than ``within_s`` ago. The one that makes them ``needed`` starts
again at zero. The state per key is the times of its latest events, at most ``needed - 1``: eight bytes each.

Two generations (see `pyryrelay.guard.rate.generations`) make eviction O(1): a key that strikes is moved to the *young*
one. Young becomes old, and old garbage, one window after the last time; no strike that still counts is lost by that.
It also happens when young is full. That loses the counts of the keys that struck least recently, so a flood of keys
that strike once does not hide a key that strikes often.

Why the memory is bounded: each generation holds at most half of ``max_keys``, and a strike frees more garbage than it
can make.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final

from pyryrelay.guard.address.keys import AddressKey
from pyryrelay.guard.rate.generations import Generations
from pyryrelay.guard.rate.tables import ShardedDict

__all__ = ["DISPOSE_SLICE", "Strikes"]

DISPOSE_SLICE: Final = 5_000
"""Keys that one sweep frees: about a millisecond."""


class Strikes:
    """The latest strikes of each key. ``needed`` and ``max_keys`` must be at least 2."""

    __slots__ = ("_generations", "_needed", "_room", "_within_s")

    def __init__(self, needed: int, within_s: float, max_keys: int) -> None:
        """Start without strikes."""
        self._needed = needed
        self._within_s = within_s
        self._room = max_keys // 2
        self._generations: Generations[AddressKey, array[float]] = Generations(ShardedDict)

    def __len__(self) -> int:
        """Count all keys that take memory, including garbage that awaits disposal."""
        return len(self._generations)

    def add(self, key: AddressKey, now: float, weight: int = 1) -> int:
        """Note a strike that counts as ``weight``; return how many there are now.

        If that is ``needed`` or more, counting starts again at zero.
        """
        times = self._generations.young.get(key)
        if times is None:
            times = self._admit(key, now)
        # A strike that is a whole window old is not within it.
        del times[: bisect_right(times, now - self._within_s)]
        count = len(times) + weight
        if count >= self._needed:
            self._generations.young.pop(key)
        else:
            times.extend([now] * weight)
        return count

    def count(self, key: AddressKey, now: float) -> int:
        """Return how many strikes of a key count at this moment. Changes nothing."""
        times = self._generations.young.get(key)
        if times is None:
            times = self._generations.old.get(key)
        return 0 if times is None else len(times) - bisect_right(times, now - self._within_s)

    def sweep(self, now: float) -> None:
        """Rotate the generations if it is time, and free at most `DISPOSE_SLICE` dropped keys."""
        if now - self._generations.rotated_at >= self._within_s:
            self._generations.rotate(now)
        self._generations.dispose(DISPOSE_SLICE)

    def _admit(self, key: AddressKey, now: float) -> array[float]:
        """Make ``key`` young; return its times."""
        generations = self._generations
        times = generations.old.pop(key)
        if times is None:
            times = array("d")
        if len(generations.young) >= self._room:
            generations.rotate(now)
        generations.young[key] = times
        generations.dispose(2)
        return times
