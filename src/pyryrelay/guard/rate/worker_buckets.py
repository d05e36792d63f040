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

`pyryrelay.guard.rate.earlier_tats` says why forgetting grants nothing, and why memory is bounded.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

from pyryrelay.guard.rate.buckets import Tracking
from pyryrelay.guard.rate.cluster_buckets import ClusterBuckets, Spent
from pyryrelay.guard.rate.earlier_tats import EarlierTats
from pyryrelay.guard.rate.gcra import Decision
from pyryrelay.guard.rate.ledger import Ledger
from pyryrelay.guard.rate.quota import Quota

__all__ = ["WorkerBuckets"]

K = TypeVar("K", bound=Hashable)


class WorkerBuckets(ClusterBuckets[K]):
    """`ClusterBuckets` that other workers share as well. See the module's docstring.

    `changes` and `absorb_debts` are for the store. ``for_workers`` has what the other workers are to be told, and
    `absorb` takes what they tell.
    """

    __slots__ = ("_of_relay", "for_workers")

    def __init__(self, quota: Quota, tracking: Tracking[K], debt_s: float | None = None) -> None:
        """Start with every bucket full."""
        super().__init__(quota, tracking, debt_s)
        self.for_workers: Ledger[K] = Ledger()
        self._of_relay: EarlierTats[K] = EarlierTats(tracking.new_table)
        """The tats of the relay that are earlier than those of the cluster."""

    def spend(self, key: K, now: float, cost: int = 1) -> Decision:
        """Take ``cost`` tokens from the bucket of ``key`` if it has them; a refusal changes nothing."""
        decision = super().spend(key, now, cost)
        if decision.allowed:
            self._added_here(key, cost, now)
        return decision

    def charge(self, key: K, tokens: int, now: float) -> None:
        """See `Buckets.charge`; these tokens are handed out as well."""
        super().charge(key, tokens, now)
        self._added_here(key, tokens, now)

    def _added_here(self, key: K, tokens: int, now: float) -> None:
        """Have the other workers told, and follow with the tat of the relay."""
        self.for_workers.add(key, tokens, self.max_tracked)
        if self._of_relay.is_used:
            self._follow(self._of_relay, key, tokens, now)

    def absorb(self, changes: Iterable[Spent[K]], now: float) -> None:
        """Take the tokens that were spent in another worker, whether they are there or not.

        They make a bucket emptier as far as the store did not say that it is.
        """
        for key, tokens in changes:
            effective, tat = self._bucket_of(key, now)
            of_relay = self._of_relay.get(effective)
            if of_relay is None or tat is None:
                super()._owe(key, effective, tat, self._later(tat, tokens, now), now)
                continue
            later = self._later(of_relay, tokens, now)
            self._of_relay.keep(effective, later, tat)
            if later > tat:
                super()._owe(key, effective, tat, later, now)

    def _owe(self, key: K, effective: K, tat: float | None, later: float, now: float) -> None:
        of_relay = self._of_relay.get(effective)
        if of_relay is None:
            of_relay = now if tat is None else tat
        self._of_relay.keep(effective, of_relay, later)
        super()._owe(key, effective, tat, later, now)

    def _beside(self) -> tuple[EarlierTats[K], ...]:
        return (self._alone, self._of_relay)
