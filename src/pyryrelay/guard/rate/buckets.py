"""Many token buckets in bounded memory: a key such as an address or a public key -> tat.

State per key is one float. Two generations (see `pyryrelay.guard.rate.generations`) make eviction O(1): a key that
spends is written to the *young* one (and leaves the *old* one); `Buckets.sweep` turns young into old and old into
garbage, at most once in the time that an empty bucket needs to fill up.

Why a dropped bucket is always a full one: it has not been written since the previous rotation at R (else it would be
young), so its tat is at most R + full_after_s + RESOLUTION_S, and the rotation that drops it happens no earlier than
that. Forgetting it and keeping it are the same.

Why the memory is bounded: an untracked key is only tracked while there is room. With less room new keys share the
bucket of a coarser one, as the ladder says, and in the end one of a few last buckets, for which room is kept. Only
these may exceed what is left for all others, and each sweep that turns one of them into garbage also disposes of at
least as many, so the total never exceeds ``max_tracked``. `Buckets.resize` to less room drops nothing either: the total
only shrinks from then on until it fits.

Why sharing grants nothing either: a new bucket starts from the latest tat among the shared buckets around it, so a
client that emptied a shared bucket does not get a full one of its own when there is room again.

Where clients wait for tokens, `Buckets.next_place` tells when the next one should come, and `Buckets.reserve` keeps
that place for it (see `pyryrelay.guard.rate.reservations`). Neither spends a token.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Final, Generic, NamedTuple, TypeVar

from pyryrelay.guard.errors import LimitError
from pyryrelay.guard.rate.gcra import RESOLUTION_S, Decision, decide, tokens_left, wait_s
from pyryrelay.guard.rate.generations import Generations
from pyryrelay.guard.rate.ladder import Ladder
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.reservations import Reservations
from pyryrelay.guard.rate.tables import HashedDict, Table

__all__ = ["MIN_TRACKED", "SWEEP_SLICE", "Buckets", "Level", "Tracking"]

K = TypeVar("K", bound=Hashable)

MIN_TRACKED: Final = 1_000
"""Smallest bound on tracked keys: fewer would make strangers share from the start."""

SWEEP_SLICE: Final = 10_000
"""Keys that one sweep disposes of: one or two milliseconds, where dropping a million at once takes many."""

# A key with a reservation takes as much memory again.
_RESERVED_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class Tracking(Generic[K]):
    """Which keys have buckets of their own, and where: at most ``max_tracked``; without room they share by ``ladder``.

    ``new_table`` makes what they are kept in; the default suits keys of any type, and whole numbers such as
    `AddressKey` are faster in `ShardedDict` and take less memory in `SortedTable`. ``new_queue_table`` makes the same
    for reservations, and is ``new_table`` unless given.
    """

    max_tracked: int
    ladder: Ladder[K]
    new_table: Callable[[], Table[K, float]] = HashedDict
    new_queue_table: Callable[[], Table[K, float]] | None = None


class Level(NamedTuple, Generic[K]):
    """What a bucket holds: its tokens, the seconds until there is one (0 if there is), and the key it belongs to.

    That is another key than the one asked for where keys share buckets. After ``full_s`` the bucket is full again, if
    nobody spends. ``elsewhere`` says how many of the tokens that are missing until then other processes have spent: the
    bucket of this process alone would have so many more.
    """

    quota: Quota
    tokens: int
    wait_s: float
    key: K
    full_s: float
    elsewhere: int = 0

    @property
    def owes(self) -> int:
        """How many tokens must come back before the bucket is empty, rounded up: only other processes go into debt."""
        return max(0, ceil((self.full_s - self.quota.full_after_s - RESOLUTION_S) / self.quota.emission_interval_s))


class Buckets(Generic[K]):
    """One bucket of ``quota`` for each key, of as many keys as ``tracking`` says.

    ``debt_s`` is how much later than that of an empty bucket a tat may lie, where `charge` takes tokens that are not
    there. ``spacing_s`` is the longest time between the places of two clients that wait for the same bucket.

    Raises `LimitError` (a `GuardError`) if there is room for fewer keys than `MIN_TRACKED`.
    """

    __slots__ = (
        "_generations",
        "_ladder",
        "_own_room",
        "_reservations",
        "_shared_rooms",
        "_shared_until",
        "debt_s",
        "max_tracked",
        "quota",
        "spacing_s",
    )

    def __init__(self, quota: Quota, tracking: Tracking[K], debt_s: float = 0.0) -> None:
        """Start with every bucket full."""
        self.quota = quota
        self.debt_s = debt_s
        self._ladder = tracking.ladder
        new_queue_table = tracking.new_queue_table or tracking.new_table
        self._reservations = Reservations(quota, tracking.max_tracked // _RESERVED_SHARE, new_queue_table)
        self.spacing_s = self._reservations.spacing_s
        self.resize(tracking.max_tracked)
        self._shared_until = -inf
        self._generations = Generations(tracking.new_table)

    def __len__(self) -> int:
        """Count all keys that take memory, including garbage that awaits disposal."""
        return len(self._generations)

    def resize(self, max_tracked: int) -> None:
        """Track at most so many keys from now on. No bucket loses or gains a token; see the module's docstring.

        Raises `LimitError`, and changes nothing, if ``max_tracked`` is below `MIN_TRACKED`.
        """
        if max_tracked < MIN_TRACKED:
            raise LimitError(f"max_tracked {max_tracked!r} is too small: use {MIN_TRACKED} or more")
        self.max_tracked = max_tracked
        # Half of what is left to each step, and all of it but the last keys' to the last step before them.
        rooms = [max_tracked * (2**n - 1) // 2**n for n in range(2, self._ladder.steps + 1)]
        self._own_room, *self._shared_rooms = *rooms, max_tracked - self._ladder.last_keys
        self._reservations.resize(max_tracked // _RESERVED_SHARE)

    def wait_s(self, key: K, now: float) -> float:
        """Return the seconds until `spend` would take a token; 0 if it would now. Changes nothing."""
        tat = self._generations.young.get(key)
        return wait_s(self.quota, self._serving(key, now)[1] if tat is None else tat, now)

    def level(self, key: K, now: float) -> Level[K]:
        """Return what the bucket that serves ``key`` holds. Changes nothing."""
        serving, tat = self._bucket_of(key, now)
        quota, full_s = self.quota, 0.0 if tat is None else max(0.0, tat - now)
        return Level(quota, tokens_left(quota, tat, now), wait_s(quota, tat, now), serving, full_s)

    def next_place(self, key: K, now: float) -> tuple[K, float, float]:
        """Return where a client that is refused now would wait, for `reserve`. Changes nothing.

        That is the key of the bucket, its tat before that client comes, and the seconds until then.
        """
        tat = self._generations.young.get(key)
        if tat is None:
            key, tat = self._serving(key, now)
        reserved_tat = self._reservations.tat(key)
        if tat is None or tat < reserved_tat:
            tat = reserved_tat
        return key, tat, wait_s(self.quota, tat, now)

    def reserve(self, place: tuple[K, float, float], from_s: float, told_s: float) -> None:
        """Keep a place for a client that was told ``told_s``, which is ``from_s`` rounded up."""
        self._reservations.add(place[0], place[1], from_s, told_s)

    def spend(self, key: K, now: float, cost: int = 1) -> Decision:
        """Take ``cost`` tokens from the bucket of ``key`` if it has them; a refusal changes nothing."""
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

    def charge(self, key: K, tokens: int, now: float) -> None:
        """Take tokens whose price was known afterwards, whether they are there or not, as far as a debt may go."""
        effective, tat = self._bucket_of(key, now)
        self._write(key, effective, self._later(tat, tokens, now), now)

    def sweep(self, now: float, most: int | None = None) -> None:
        """Rotate the generations if it is time, and dispose of at most ``most`` dropped keys (default `SWEEP_SLICE`).

        Call it about once a second. Late calls only keep full buckets for longer.
        """
        # One resolution that a tat may lie beyond the tolerance, one for the rounding of this subtraction.
        if now - self._generations.rotated_at >= self.quota.full_after_s + self.debt_s + 2 * RESOLUTION_S:
            self._generations.rotate(now)
        most = SWEEP_SLICE if most is None else most
        self._generations.dispose(max(most, self._ladder.last_keys))
        self._reservations.sweep(now, most // _RESERVED_SHARE)

    def _bucket_of(self, key: K, now: float) -> tuple[K, float | None]:
        """Return the key whose bucket serves ``key``, and its tat."""
        tat = self._generations.young.get(key)
        return self._serving(key, now) if tat is None else (key, tat)

    def _later(self, tat: float | None, tokens: int, now: float) -> float:
        """Return a tat after so many tokens were taken."""
        base = now if tat is None or tat < now else tat
        return base + tokens * self.quota.emission_interval_s

    def _write(self, key: K, effective: K, tat: float, now: float) -> None:
        """Set the tat of the bucket that serves ``key``, as far as a debt may go."""
        tat = min(tat, now + self.quota.full_after_s + self.debt_s)
        generations = self._generations
        generations.old.pop(effective)
        generations.young[effective] = tat
        if effective != key:
            self._shared_until = max(self._shared_until, tat)

    def _tat(self, key: K) -> float | None:
        generations = self._generations
        tat = generations.young.get(key)
        return generations.old.get(key) if tat is None else tat

    def _serving(self, key: K, now: float) -> tuple[K, float | None]:
        """Return the key whose bucket serves ``key``, which is not young, and the tat to start from.

        It is the finest among ``key`` and its coarser keys that is tracked already or for which there is room.
        """
        tat = self._generations.old.get(key)
        if tat is not None:
            return key, tat
        size = len(self._generations)
        is_debt_shared = now < self._shared_until
        if size < self._own_room:
            return key, self._latest(self._ladder(key)) if is_debt_shared else None
        coarser = self._ladder(key)
        for step, room in enumerate(self._shared_rooms):
            shared = coarser[step]
            tat = self._tat(shared)
            if tat is not None:
                return shared, tat
            if size < room:
                return shared, self._latest(coarser[step + 1 :]) if is_debt_shared else None
        return coarser[-1], self._tat(coarser[-1])

    def _latest(self, shared: Sequence[K]) -> float | None:
        """Return the latest tat among shared buckets; None if none is tracked."""
        tats = [tat for tat in map(self._tat, shared) if tat is not None]
        return max(tats, default=None)
