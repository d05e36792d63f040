"""The virtual queue of a token bucket: every refused client is promised a token of its own, at a time of its own.

Clients that share an empty bucket must not all be told to come back at the same moment, because one of them would get
the token and the others would be refused again. So the bucket has a second number while somebody is waiting: the tat
that it will have when all who wait have come. The next client is promised the first token after that.

Nobody can tell the clients of one address apart, so a promise is no ticket: whoever comes first takes the token. A
client that finds its token gone is promised the next free one.

With T the emission interval and B the burst, a client that is told to come at p takes its token between p and p + L,
where L is `LATE_S`. GCRA grants it whenever it comes, and in whatever order others do, if p is no earlier than
``tat - (B - 1)*T`` and the next promise reckons with ``max(tat, p + L) + T``. Where the burst is worth more time than
clients are late, that is one client each T. Where it is not, a late client can make the next one early. No promise
reckons with more than half an interval of that: some clients are refused twice then, but more of them come in.

A promise is forgotten once its time is over, and earlier where there is no room for it. Then the bucket knows less
than it promised, and some clients have to wait twice; none of them gets a token more. Times are seconds on one
monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Final, Generic, TypeVar

from pyryrelay.guard.rate.generations import Generations
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.tables import Table

__all__ = ["LATEST_S", "LATE_S", "Reservations"]

K = TypeVar("K", bound=Hashable)

LATE_S: Final = 0.5
"""How late clients may come that wait as long as they were told: jitter, and the time that connecting takes."""

LATEST_S: Final = 1.0 + LATE_S
"""How long after they could clients come at the latest: what they are told is rounded up to whole seconds."""


class Reservations(Generic[K]):
    """What is promised to the clients of many buckets of `quota`, for at most `max_keys` of them.

    `pace_s` is the longest time between two promises of one bucket whose clients wait for nothing else.
    """

    __slots__ = ("_generations", "_interval_s", "_most_late_s", "_old_until", "_room", "_young_until", "pace_s")

    def __init__(self, quota: Quota, max_keys: int, new_table: Callable[[], Table[K, float]]) -> None:
        """Start with nothing promised."""
        interval_s = self._interval_s = quota.emission_interval_s
        self._most_late_s = min(LATEST_S, interval_s / 2)
        self.pace_s = interval_s + max(0.0, self._most_late_s - (quota.burst - 1) * interval_s)
        self._generations = Generations(new_table)
        self._young_until = self._old_until = -inf
        self.resize(max_keys)

    def __len__(self) -> int:
        """Count all keys that take memory, garbage that awaits disposal included."""
        return len(self._generations)

    def resize(self, max_keys: int) -> None:
        """Keep promises for at most so many keys from now on."""
        self._room = max_keys // 2

    def tat(self, key: K) -> float:
        """Return the tat of the bucket when all have come that are waited for; long ago if nobody is."""
        tat = self._generations.young.get(key)
        if tat is None:
            tat = self._generations.old.get(key)
        return -inf if tat is None else tat

    def add(self, key: K, tat: float, from_s: float, told_s: float) -> None:
        """Promise a token from `from_s` on to a client that is told `told_s`, which is later by rounding alone.

        `from_s` is no earlier than `tat`, with all promises before, allows.
        """
        generations, until_s = self._generations, told_s + LATE_S
        if generations.young.get(key) is None:
            generations.old.pop(key)
            if len(generations.young) >= self._room:
                self._rotate(from_s)
            generations.dispose(2)
        generations.young[key] = max(tat, min(until_s, from_s + self._most_late_s)) + self._interval_s
        if until_s > self._young_until:
            self._young_until = until_s

    def sweep(self, now: float, most: int) -> None:
        """Forget what was promised for earlier than now, and free at most `most` keys."""
        if now > self._old_until and len(self._generations):
            self._rotate(now)
        self._generations.dispose(most)

    def _rotate(self, now: float) -> None:
        self._generations.rotate(now)
        self._old_until, self._young_until = self._young_until, -inf
