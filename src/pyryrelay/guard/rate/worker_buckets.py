"""Buckets of one worker of several, whose relay is in a cluster: what the others spend is heard in two ways.

The workers of one relay tell each other `Spent` tokens, and all workers of all relays charge a store, which tells them
a `Debt`. The store tells, as a part of the debt, what the workers of this relay have spent, too. To add both would
count those tokens twice, in whatever order they are heard.

So a bucket has two tats. *That of the relay* has what was spent here and in the other workers. *That of the cluster*
has what the store says and what was spent here since. The later one of both decides: it is what `Buckets` keeps. That
of the relay is kept beside it as long as it is earlier. Neither is ever later than that of a single bucket which all
processes would share, if everything were heard without delay; so nothing counts twice.

What it lets through too much is what `pyryrelay.guard.rate.cluster_buckets` says, with all workers of all relays as
the N processes.

Why forgetting grants nothing: a tat of the relay is kept at least until the bucket of the cluster is full. Why memory
is bounded: there is at most one beside each tat that `Buckets` keeps.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from pyryrelay.guard.rate.buckets import SWEEP_SLICE
from pyryrelay.guard.rate.cluster_buckets import ClusterBuckets, Spent
from pyryrelay.guard.rate.gcra import Decision
from pyryrelay.guard.rate.generations import Generations
from pyryrelay.guard.rate.ladder import Ladder
from pyryrelay.guard.rate.ledger import Ledger
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.tables import HashedDict, Table

__all__ = ["WorkerBuckets"]

K = TypeVar("K", bound=Hashable)


class WorkerBuckets(ClusterBuckets[K]):
    """`ClusterBuckets` that other workers share as well. See the module's docstring.

    `changes` and `absorb_debts` are for the store. ``for_workers`` has what the other workers are to be told, and
    `absorb` takes what they tell.
    """

    __slots__ = ("_of_relay", "for_workers")

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
        super().__init__(quota, max_tracked, ladder, new_table, new_queue_table, debt_s)
        self.for_workers: Ledger[K] = Ledger()
        self._of_relay: Generations[K, float] = Generations(new_table)
        """The tats of the relay that are earlier than those of the cluster, by the key of the bucket that serves."""

    def spend(self, key: K, now: float, cost: int = 1) -> Decision:
        """Take ``cost`` tokens from the bucket of ``key`` if it has them; a refusal changes nothing."""
        decision = super().spend(key, now, cost)
        if decision.allowed:
            self._added_here(key, cost, now)
        return decision

    def charge(self, key: K, tokens: int, now: float) -> None:
        """Take tokens whose price was known afterwards, whether they are there or not; they are handed out as well."""
        super().absorb((Spent(key, tokens),), now)
        self.ledger.add(key, tokens, self.max_tracked)
        self._added_here(key, tokens, now)

    def _added_here(self, key: K, tokens: int, now: float) -> None:
        """Have the other workers told, and follow with the tat of the relay."""
        self.for_workers.add(key, tokens, self.max_tracked)
        if len(self._of_relay):
            effective, tat = self._bucket_of(key, now)
            of_relay = self._known(effective)
            if of_relay is not None and tat is not None:
                self._keep(effective, self._later(of_relay, tokens, now), tat)

    def absorb(self, changes: Iterable[Spent[K]], now: float) -> None:
        """Take the tokens that were spent in another worker, whether they are there or not.

        They make a bucket emptier as far as the store did not say that it is.
        """
        for key, tokens in changes:
            effective, tat = self._bucket_of(key, now)
            of_relay = self._known(effective)
            if of_relay is None or tat is None:
                super().absorb((Spent(key, tokens),), now)
                continue
            later = self._later(of_relay, tokens, now)
            self._keep(effective, later, tat)
            if later > tat:
                self._write(key, effective, later, now)

    def _owe(self, key: K, effective: K, tat: float | None, owed_tat: float, now: float) -> None:
        of_relay = self._known(effective)
        if of_relay is None:
            of_relay = now if tat is None else tat
        self._keep(effective, of_relay, owed_tat)
        self._write(key, effective, owed_tat, now)

    def sweep(self, now: float, most: int | None = None) -> None:
        """See `Buckets.sweep`."""
        rotated_at = self._generations.rotated_at
        super().sweep(now, most)
        if self._generations.rotated_at != rotated_at:
            self._of_relay.rotate(now)
        self._of_relay.dispose(SWEEP_SLICE if most is None else most)

    def _later(self, tat: float, tokens: int, now: float) -> float:
        return max(tat, now) + tokens * self.quota.emission_interval_s

    def _known(self, effective: K) -> float | None:
        """Return the tat of the relay, None if it is that of the bucket."""
        of_relay = self._of_relay
        tat = of_relay.young.get(effective)
        return of_relay.old.get(effective) if tat is None else tat

    def _keep(self, effective: K, of_relay: float, tat: float) -> None:
        """Keep the tat of the relay, if it is earlier than that of the bucket."""
        self._of_relay.old.pop(effective)
        if of_relay < tat:
            self._of_relay.young[effective] = of_relay
        else:
            self._of_relay.young.pop(effective)
