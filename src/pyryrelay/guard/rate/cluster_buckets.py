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

Why forgetting grants nothing: generations rotate ``debt_s`` later than those of `Buckets`, so here too a dropped bucket
is a full one. Why memory is bounded: what is absorbed takes the room that spending it would take, and at most
``max_tracked`` keys wait to be handed out. More of them are not handed out, in favour of the client.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

from pyryrelay.guard.rate.buckets import Buckets
from pyryrelay.guard.rate.gcra import Decision
from pyryrelay.guard.rate.ladder import Ladder
from pyryrelay.guard.rate.ledger import Ledger, Spent
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.tables import HashedDict, Table

__all__ = ["ClusterBuckets", "Debt", "Spent"]

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

    __slots__ = ("ledger",)

    def __init__(
        self,
        quota: Quota,
        max_tracked: int,
        ladder: Ladder[K],
        new_table: Callable[[], Table[K, float]] = HashedDict,
        new_queue_table: Callable[[], Table[K, float]] | None = None,
        debt_s: float | None = None,
    ) -> None:
        """Start with every bucket full."""
        super().__init__(quota, max_tracked, ladder, new_table, new_queue_table)
        self.debt_s = quota.full_after_s if debt_s is None else debt_s
        self.ledger: Ledger[K] = Ledger()

    def spend(self, key: K, now: float, cost: int = 1) -> Decision:
        """Take ``cost`` tokens from the bucket of ``key`` if it has them; a refusal changes nothing."""
        decision = super().spend(key, now, cost)
        if decision.allowed:
            self.ledger.add(key, cost, self.max_tracked)
        return decision

    def charge(self, key: K, tokens: int, now: float) -> None:
        """Take tokens whose price was known afterwards, whether they are there or not; they are handed out as well."""
        self.absorb((Spent(key, tokens),), now)
        self.ledger.add(key, tokens, self.max_tracked)

    @property
    def pending(self) -> int:
        """The number of keys that wait to be handed out; a gauge."""
        return len(self.ledger)

    def changes(self, most: int = 200) -> list[Spent[K]]:
        """Hand out the tokens that were spent here since the last call, of at most ``most`` keys, oldest first."""
        return self.ledger.take(most)

    def absorb(self, changes: Iterable[Spent[K]], now: float) -> None:
        """Take the tokens that were spent in another process, whether they are there or not."""
        interval_s = self.quota.emission_interval_s
        for key, tokens in changes:
            effective, tat = self._bucket_of(key, now)
            base = now if tat is None or tat < now else tat
            self._write(key, effective, base + tokens * interval_s, now)

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

    def _owe(self, key: K, effective: K, tat: float | None, owed_tat: float, now: float) -> None:
        """Set the tat of the bucket that serves ``key``, which was ``tat``, to what the store says."""
        self._write(key, effective, owed_tat, now)

    def _bucket_of(self, key: K, now: float) -> tuple[K, float | None]:
        """Return the key whose bucket serves ``key``, and its tat."""
        tat = self._generations.young.get(key)
        return self._serving(key, now) if tat is None else (key, tat)

    def _write(self, key: K, effective: K, tat: float, now: float) -> None:
        """Set the tat of the bucket that serves ``key``, as far as a debt may go."""
        tat = min(tat, now + self.quota.full_after_s + self.debt_s)
        generations = self._generations
        generations.old.pop(effective)
        generations.young[effective] = tat
        if effective != key:
            self._shared_until = max(self._shared_until, tat)
