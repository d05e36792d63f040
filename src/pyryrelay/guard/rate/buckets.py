"""Many token buckets in bounded memory: `AddressKey` -> tat.

State per key is one float. Two generations (see `generations`) make eviction O(1): a key that spends is written to
the *young* one (and leaves the *old* one); `Buckets.sweep` turns young into old and old into garbage, at most once
each time an empty bucket needs to fill up.

Why a dropped bucket is always a full one: it has not been written since the previous rotation at R (else it
would be young), so its tat is at most R + full_after_s + RESOLUTION_S; the rotation that drops it happens no
earlier than that. Forgetting it and keeping it are the same thing.

Why the memory is bounded: an untracked key is only tracked while there is room. With less room new clients
share the bucket of a coarser prefix, and in the end one bucket per family, for which two places are kept.
Only the last two may exceed ``max_tracked - 2``, and each sweep that turns one of them into garbage also
disposes of at least as many, so the total never exceeds `max_tracked`. `Buckets.resize` to less room drops
nothing either: the total only shrinks from then on until it fits.

Why sharing grants nothing either: a new bucket starts from the latest tat among the shared buckets around it,
so a client that emptied a shared bucket cannot get a fresh one of its own when room returns.

Where clients wait for tokens, `Buckets.next_place` says when the next one should come, and `Buckets.reserve` keeps that
place for it (see `promises`). Neither spends anything.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from pyryrelay.guard.address.clientip import AddressKey, coarser
from pyryrelay.guard.errors import LimitError
from pyryrelay.guard.rate.gcra import RESOLUTION_S, Decision, decide, wait_s
from pyryrelay.guard.rate.generations import Generations
from pyryrelay.guard.rate.reservations import Reservations
from pyryrelay.guard.rate.tables import ShardedDict, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyryrelay.guard.rate.quota import Quota

__all__ = ["MIN_TRACKED", "SWEEP_SLICE", "Buckets", "Place", "covering_prefix"]

Place = tuple[AddressKey, float, float]
"""Where a client would wait: the key of the bucket, its tat before that client comes, and the seconds until then."""

MIN_TRACKED: Final = 1_000
"""Smallest bound on tracked keys: fewer would make strangers share from the start."""

SWEEP_SLICE: Final = 10_000
"""Keys that one sweep disposes of: one or two milliseconds, where dropping a million at once takes many."""

_V4_LADDER: Final = (24, 16, 8)
_V6_LADDER: Final = (48, 32, 16)
_FAMILY_KEY: Final = 2

# A key that is promised something takes as much memory again.
_PROMISED_SHARE: Final = 4


def covering_prefix(key: AddressKey) -> AddressKey:
    """The key of the /24 or /48 around an address: what one customer or one rented subnet has.

    A key that is coarser already, because clients are folded to less than that, is its own prefix.
    """
    # `coarser`, without its checks: it is asked with every attempt.
    prefix = key >> 1
    surplus = prefix.bit_length() - (_V6_LADDER[0] if key & 1 else _V4_LADDER[0]) - 1
    return key if surplus <= 0 else prefix >> surplus << 1 | key & 1


class Buckets:
    """One bucket of `quota` per key, at most `max_tracked` of them. They are kept in what `new_table` makes.

    `pace_s` is the longest time between the places of two clients that wait for the same bucket.

    Raises `LimitError` (a `GuardError`) if `max_tracked` is below `MIN_TRACKED`.
    """

    __slots__ = (
        "_generations",
        "_own_room",
        "_reservations",
        "_shared_rooms",
        "_shared_until",
        "max_tracked",
        "pace_s",
        "quota",
    )

    def __init__(self, quota: Quota, max_tracked: int, new_table: Callable[[], Table[float]] = ShardedDict) -> None:
        """Start with every bucket full."""
        self.quota = quota
        self._reservations = Reservations(quota, max_tracked // _PROMISED_SHARE)
        self.pace_s = self._reservations.pace_s
        self.resize(max_tracked)
        self._shared_until = -inf
        self._generations: Generations[float] = Generations(new_table)

    def __len__(self) -> int:
        """Count all keys that take memory, garbage that awaits disposal included."""
        return len(self._generations)

    def resize(self, max_tracked: int) -> None:
        """Track at most so many keys from now on. Nobody's tokens change; see the module's docstring.

        Raises `LimitError`, and changes nothing, if `max_tracked` is below `MIN_TRACKED`.
        """
        if max_tracked < MIN_TRACKED:
            raise LimitError(f"max_tracked {max_tracked!r} is too small: use {MIN_TRACKED} or more")
        self.max_tracked = max_tracked
        self._own_room = max_tracked * 3 // 4
        self._shared_rooms = (max_tracked * 7 // 8, max_tracked * 15 // 16, max_tracked - 2)
        self._reservations.resize(max_tracked // _PROMISED_SHARE)

    def peek(self, key: AddressKey, now: float, cost: int = 1) -> Decision:
        """Say what `spend` would answer now. Changes nothing."""
        tat = self._generations.young.get(key)
        return decide(self.quota, self._serving(key, now)[1] if tat is None else tat, now, cost)

    def wait_s(self, key: AddressKey, now: float) -> float:
        """Seconds until `spend` would take a token; 0 if it would now. Changes nothing."""
        tat = self._generations.young.get(key)
        return wait_s(self.quota, self._serving(key, now)[1] if tat is None else tat, now)

    def next_place(self, key: AddressKey, now: float) -> Place:
        """Say where a client would wait that is refused now. Changes nothing."""
        tat = self._generations.young.get(key)
        if tat is None:
            key, tat = self._serving(key, now)
        promised_tat = self._reservations.tat(key)
        if tat is None or tat < promised_tat:
            tat = promised_tat
        return key, tat, wait_s(self.quota, tat, now)

    def reserve(self, place: Place, from_s: float, told_s: float) -> None:
        """Keep `place` for a client that was told `told_s`; `from_s`, which no rounding made later, would do."""
        self._reservations.add(place[0], place[1], from_s, told_s)

    def spend(self, key: AddressKey, now: float, cost: int = 1) -> Decision:
        """Take `cost` tokens from the bucket of `key` if it has them; a refusal changes nothing."""
        generations = self._generations
        effective, tat = key, generations.young.get(key)
        may_be_old = tat is None
        if may_be_old:
            effective, tat = self._serving(key, now)
        decision = decide(self.quota, tat, now, cost)
        if decision.allowed:
            if may_be_old and tat is not None:
                generations.old.pop(effective)
            generations.young[effective] = decision.tat
            if effective != key:
                self._shared_until = max(self._shared_until, decision.tat)
        return decision

    def sweep(self, now: float, most: int | None = None) -> None:
        """Rotate the generations if it is time, and dispose of at most `most` dropped keys (`SWEEP_SLICE` unless told).

        Call it about once a second. Late calls only keep full buckets for longer.
        """
        # One resolution that a tat may lie beyond the tolerance, one for the rounding of this subtraction.
        if now - self._generations.rotated_at >= self.quota.full_after_s + 2 * RESOLUTION_S:
            self._generations.rotate(now)
        most = SWEEP_SLICE if most is None else most
        self._generations.dispose(most)
        self._reservations.sweep(now, most // _PROMISED_SHARE)

    def _tat(self, key: AddressKey) -> float | None:
        generations = self._generations
        tat = generations.young.get(key)
        return generations.old.get(key) if tat is None else tat

    def _serving(self, key: AddressKey, now: float) -> tuple[AddressKey, float | None]:
        """Return the key whose bucket serves `key`, which is not young, and the tat to start from.

        It is the finest prefix of `key` that is tracked already or for which there is room.
        """
        tat = self._generations.old.get(key)
        if tat is not None:
            return key, tat
        size = len(self._generations)
        if size < self._own_room:
            return key, self._inherited(key, now)
        for bits, room in zip(_V6_LADDER if key & 1 else _V4_LADDER, self._shared_rooms, strict=True):
            shared = coarser(key, bits)
            tat = self._tat(shared)
            if tat is not None:
                return shared, tat
            if size < room:
                return shared, self._inherited(shared, now)
        family = _FAMILY_KEY | (key & 1)
        return family, self._tat(family)

    def _inherited(self, key: AddressKey, now: float) -> float | None:
        """Return the latest tat among the shared buckets of the prefixes around `key`, if any is in debt."""
        if now >= self._shared_until:
            return None
        tats = [self._tat(coarser(key, bits)) for bits in (*(_V6_LADDER if key & 1 else _V4_LADDER), 0)]
        return max((tat for tat in tats if tat is not None), default=None)
