"""Buckets that several processes share: each decides alone, and tells the others afterwards what it let through.

Two things can be exchanged:

* `Spent`, the tokens that a process took from a bucket. They are added up: `ClusterBuckets.changes` hands out each
  token once, and `ClusterBuckets.absorb` takes it as if it had been spent here. Neither the order matters nor how
  tokens are divided into changes, but each change has to arrive exactly once in each other process. Drop what cannot be
  delivered instead of keeping it: the bucket fills up meanwhile.
* `Debt`, the seconds until a bucket is full again, as told by a store that adds up what all processes spend. It is a
  deadline, so the latest one counts: `ClusterBuckets.absorb_debts` never makes a bucket fuller, and at one moment it
  may take debts in any order and repeatedly. A debt contains what the store was told; what this process spent and did
  not hand out yet comes on top. So hear the debts of the last changes before you ask for the next ones.

Refusals are not exchanged, and what was absorbed is not handed out again. All times are durations, so the clocks of two
processes are never compared.

What other processes spend may take a bucket into debt: its tat lies up to ``debt_s`` later than that of an empty one.
With N processes that each admit up to m requests for a key before the others know, no window sees more than
``B + window/T + (N - 1)*m`` requests, and m is at most B. That holds if ``(N - 1)*m`` tokens fit into ``debt_s``.
Without debts each process would give away each token once more, for ever.

What this process alone has spent is followed beside that (`pyryrelay.guard.rate.earlier_tats`), for operators who ask
why a bucket is empty: see `ClusterBuckets.level`. It decides nothing.

Why forgetting grants nothing: generations rotate ``debt_s`` later than those of `Buckets`, so here too a dropped bucket
is a full one. Why memory is bounded: what is absorbed takes the room that spending it would take, and at most
``max_tracked`` keys wait to be handed out. More of them are not handed out, in favour of the client.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from pyryrelay.guard.rate.buckets import SWEEP_SLICE, Buckets, Level, Tracking
from pyryrelay.guard.rate.earlier_tats import EarlierTats
from pyryrelay.guard.rate.gcra import Decision
from pyryrelay.guard.rate.ledger import Ledger, Spent
from pyryrelay.guard.rate.quota import Quota

__all__ = ["LATE_S", "ClusterBuckets", "Debt", "Spent"]

LATE_S: Final = 0.1
"""A bucket that is emptier by less time than that need not be so because of what others have spent."""

K = TypeVar("K", bound=Hashable)


class Debt(NamedTuple, Generic[K]):
    """The bucket of ``key`` is full again in so many seconds, if no process spends anything until then."""

    key: K
    seconds: float


class ClusterBuckets(Buckets[K]):
    """`Buckets` whose tokens are spent in several processes. See the module's docstring for what they exchange.

    ``debt_s`` is the time that an empty bucket takes to fill up, unless given. ``ledger`` has what `changes` hands out,
    and its ``on_change`` is called when there is something to hand out again.
    """

    __slots__ = ("_alone", "_late_s", "ledger")

    def __init__(self, quota: Quota, tracking: Tracking[K], debt_s: float | None = None) -> None:
        """Start with every bucket full."""
        super().__init__(quota, tracking, quota.full_after_s if debt_s is None else debt_s)
        self.ledger: Ledger[K] = Ledger()
        self._alone: EarlierTats[K] = EarlierTats(tracking.new_table)
        """The tats of this process alone that are earlier than those that decide."""
        self._late_s = max(LATE_S, quota.emission_interval_s / 2)

    def level(self, key: K, now: float) -> Level[K]:
        """Return what the bucket that serves ``key`` holds, and how much of that others have spent. Changes nothing."""
        level = super().level(key, now)
        alone = self._alone.get(level.key)
        if alone is None:
            return level
        others_s = level.full_s - max(0.0, alone - now)
        return level._replace(elsewhere=max(0, round(others_s / self.quota.emission_interval_s)))

    def spend(self, key: K, now: float, cost: int = 1) -> Decision:
        """Take ``cost`` tokens from the bucket of ``key`` if it has them; a refusal changes nothing."""
        decision = super().spend(key, now, cost)
        if decision.allowed:
            self.ledger.add(key, cost, self.max_tracked)
            if self._alone.is_used:
                self._follow(self._alone, key, cost, now)
        return decision

    def charge(self, key: K, tokens: int, now: float) -> None:
        """See `Buckets.charge`; these tokens are handed out as well."""
        super().charge(key, tokens, now)
        self.ledger.add(key, tokens, self.max_tracked)
        if self._alone.is_used:
            self._follow(self._alone, key, tokens, now)

    def _follow(self, tats: EarlierTats[K], key: K, tokens: int, now: float) -> None:
        """Take tokens that were spent here, and from the bucket already, from an earlier tat as well."""
        effective, tat = self._bucket_of(key, now)
        earlier = tats.get(effective)
        if earlier is not None and tat is not None:
            tats.keep(effective, self._later(earlier, tokens, now), tat)

    @property
    def pending(self) -> int:
        """The number of keys that wait to be handed out; a gauge."""
        return len(self.ledger)

    def changes(self, most: int = 200) -> list[Spent[K]]:
        """Hand out the tokens that were spent here since the last call, of at most ``most`` keys, oldest first."""
        return self.ledger.take(most)

    def absorb(self, changes: Iterable[Spent[K]], now: float) -> None:
        """Take the tokens that were spent in another process, whether they are there or not."""
        for key, tokens in changes:
            effective, tat = self._bucket_of(key, now)
            self._owe(key, effective, tat, self._later(tat, tokens, now), now)

    def absorb_debts(self, debts: Iterable[Debt[K]], now: float) -> None:
        """Make buckets as empty as the store says that they are; those that are emptier stay so."""
        interval_s, tokens, young = self.quota.emission_interval_s, self.ledger.tokens, self._generations.young
        for key, seconds in debts:
            owed_tat = now + seconds + tokens(key) * interval_s
            known = young.get(key)
            if known is not None and known >= owed_tat:
                continue
            effective, tat = self._bucket_of(key, now)
            if owed_tat > now and (tat is None or tat < owed_tat):
                self._owe(key, effective, tat, owed_tat, now)

    def _owe(self, key: K, effective: K, tat: float | None, later: float, now: float) -> None:
        """Set the tat of the bucket that serves ``key``, which was ``tat``, to a later one: others have spent."""
        alone = self._alone.get(effective) if self._alone.is_used else None
        before = now if tat is None or tat < now else tat
        # The store charges a little later than this process spends, so a debt of our own tokens is a little longer.
        if alone is not None or later - before > self._late_s:
            self._alone.keep(effective, before if alone is None else alone, later)
        self._write(key, effective, later, now)

    def sweep(self, now: float, most: int | None = None) -> None:
        """See `Buckets.sweep`."""
        rotated_at = self._generations.rotated_at
        super().sweep(now, most)
        is_rotated = self._generations.rotated_at != rotated_at
        for tats in self._beside():
            if is_rotated:
                tats.rotate(now)
            tats.dispose(SWEEP_SLICE if most is None else most)

    def _beside(self) -> tuple[EarlierTats[K], ...]:
        """Return what is kept beside the tats that decide."""
        return (self._alone,)
