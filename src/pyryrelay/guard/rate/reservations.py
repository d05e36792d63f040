"""Reservations: a token of its own for each refused client, at a time of its own.

Clients that share an empty bucket must not all be told to come back at the same moment, because one of them would get
the token and the others would be refused again. So a bucket has a second number while clients wait: the tat that it
will have when all of them have come. The first token after that is reserved for the next client.

The clients of one address cannot be told apart, so a reservation is not bound to a client: the one that comes first
takes the token. A client that finds its token gone gets a reservation for the next free one.

With T the emission interval and B the burst, a client that is told to come at p takes its token between p and p + L,
where L is `LATE_S`. GCRA grants it whenever it comes, and in whatever order others do, if p is no earlier than
``tat - (B - 1)*T`` and the next reservation assumes ``max(tat, p + L) + T``. If the burst is worth more time than
clients are late, that is one client each T. If it is not, a late client can make the next one early. No reservation
allows for more than half an interval of that: some clients are refused twice then, but more of them come in.

A reservation is forgotten once its time is over, and earlier if there is no room for it. Then some clients have to wait
twice, but none of them gets an additional token.

Times are seconds on one monotonic clock.
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
"""How late clients may come that wait as long as they are told: jitter, and the time that connecting takes."""

LATEST_S: Final = 1.0 + LATE_S
"""The same, counted from the moment at which there is a token: clients are told whole seconds, rounded up."""


class Reservations(Generic[K]):
    """Reservations for many buckets of ``quota``, at most ``max_keys`` of them.

    ``spacing_s`` is the longest time between two reservations of one bucket whose clients wait for nothing else.
    """

    __slots__ = ("_generations", "_interval_s", "_most_late_s", "_old_until", "_room", "_young_until", "spacing_s")

    def __init__(self, quota: Quota, max_keys: int, new_table: Callable[[], Table[K, float]]) -> None:
        """Start without reservations."""
        interval_s = self._interval_s = quota.emission_interval_s
        self._most_late_s = min(LATEST_S, interval_s / 2)
        self.spacing_s = interval_s + max(0.0, self._most_late_s - (quota.burst - 1) * interval_s)
        self._generations = Generations(new_table)
        self._young_until = self._old_until = -inf
        self.resize(max_keys)

    def __len__(self) -> int:
        """Count all keys that take memory, including garbage that awaits disposal."""
        return len(self._generations)

    def resize(self, max_keys: int) -> None:
        """Keep reservations for at most so many keys from now on."""
        self._room = max_keys // 2

    def tat(self, key: K) -> float:
        """Return the tat that the bucket will have when all waiting clients have come; -inf if none waits."""
        tat = self._generations.young.get(key)
        if tat is None:
            tat = self._generations.old.get(key)
        return -inf if tat is None else tat

    def add(self, key: K, tat: float, from_s: float, told_s: float) -> None:
        """Reserve a token from ``from_s`` on for a client that is told ``told_s``, which is later by rounding alone.

        ``tat`` is that of the bucket with all earlier reservations, and allows a token at ``from_s``.
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
        """Forget reservations for times before now, and free at most ``most`` keys."""
        if now > self._old_until and len(self._generations):
            self._rotate(now)
        self._generations.dispose(most)

    def _rotate(self, now: float) -> None:
        self._generations.rotate(now)
        self._old_until, self._young_until = self._young_until, -inf
