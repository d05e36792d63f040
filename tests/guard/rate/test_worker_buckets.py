"""Buckets of workers in a cluster: what is heard in two ways counts once."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from pyryrelay.guard.rate.buckets import MIN_TRACKED, Tracking
from pyryrelay.guard.rate.cluster_buckets import Debt, Spent
from pyryrelay.guard.rate.gcra import RESOLUTION_S
from pyryrelay.guard.rate.ladder import HashLadder
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.worker_buckets import WorkerBuckets

QUOTA = Quota.parse("1/second burst 5")
INTERVAL_S, FULL_S = QUOTA.emission_interval_s, QUOTA.full_after_s
DEBT_S = 3 * FULL_S
KEY = 100


def buckets(max_tracked: int = MIN_TRACKED) -> WorkerBuckets[int]:
    """Return the buckets of one worker, all full."""
    return WorkerBuckets(QUOTA, Tracking(max_tracked, HashLadder([0])), DEBT_S)


def tat(table: WorkerBuckets[int], key: int = KEY) -> float:
    """Return the tat of a key, long ago for a full bucket."""
    return table.next_place(key, 0.0)[1]


@pytest.mark.parametrize("is_store_first", [True, False])
def test_what_another_worker_spent_counts_once(is_store_first: bool) -> None:
    """The store's debt has it, and so has what that worker says, whichever comes first."""
    table = buckets()
    table.spend(KEY, 0.0)
    table.changes()
    if is_store_first:
        table.absorb_debts([Debt(KEY, 3.0)], 0.0)
    table.absorb([Spent(KEY, 2)], 0.0)
    assert tat(table) == 3.0
    if not is_store_first:
        table.absorb_debts([Debt(KEY, 3.0)], 0.0)
    assert tat(table) == 3.0
    table.absorb([Spent(KEY, 1)], 0.0)
    assert tat(table) == 4.0


def test_other_relays_and_other_workers_add_up_with_the_next_debt() -> None:
    """Until then each of both is a lower bound."""
    table = buckets()
    table.absorb_debts([Debt(KEY, 2.0)], 0.0)
    table.absorb([Spent(KEY, 2)], 0.0)
    assert tat(table) == 2.0
    table.spend(KEY, 0.0)
    assert tat(table) == 3.0
    table.changes()
    table.absorb_debts([Debt(KEY, 5.0)], 0.0)
    assert tat(table) == 5.0
    table.absorb([Spent(KEY, 1)], 0.0)
    assert tat(table) == 5.0
    table.absorb([Spent(KEY, 2)], 0.0)
    assert tat(table) == 6.0


def test_what_the_store_says_of_one_key_is_nothing_of_others() -> None:
    """A key of which only this worker knows is charged once, while the store has told of another."""
    table = buckets()
    table.absorb_debts([Debt(KEY, 2.0)], 0.0)
    table.spend(KEY + 1, 0.0)
    assert (tat(table), tat(table, KEY + 1)) == (2.0, 1.0)
    table.absorb([Spent(KEY + 1, 2)], 0.0)
    assert (tat(table), tat(table, KEY + 1)) == (2.0, 3.0)


def test_what_is_spent_here_is_in_both() -> None:
    """So what another worker says later comes on top of it."""
    table = buckets()
    table.absorb_debts([Debt(KEY, 2.0)], 0.0)
    table.spend(KEY, 0.0)
    table.absorb([Spent(KEY, 3)], 0.0)
    assert tat(table) == 4.0


def test_both_are_told_what_was_spent_here() -> None:
    """Each token once to either, and never what was absorbed."""
    table = buckets()
    table.spend(KEY, 0.0, 2)
    table.absorb([Spent(KEY, 1)], 0.0)
    table.absorb_debts([Debt(KEY, 4.0)], 0.0)
    assert not table.spend(KEY, 0.0, 4).allowed
    table.charge(KEY, 9, 0.0)
    assert table.changes() == table.for_workers.take(9) == [Spent(KEY, 11)]
    assert table.changes() == table.for_workers.take(9) == []


def test_a_price_that_is_known_afterwards_goes_into_debt() -> None:
    """In both tats."""
    table = buckets()
    table.absorb_debts([Debt(KEY, 2.0)], 0.0)
    table.charge(KEY, 6, 0.0)
    assert tat(table) == 8.0
    table.absorb([Spent(KEY, 2)], 0.0)
    assert tat(table) == 8.0
    table.absorb([Spent(KEY, 1)], 0.0)
    assert tat(table) == 9.0


def test_a_level_tells_what_was_spent_elsewhere() -> None:
    """In other workers and in the rest of the cluster together, each token once."""
    table = buckets()
    table.spend(KEY, 0.0)
    table.changes()
    table.absorb([Spent(KEY, 2)], 0.0)
    assert table.level(KEY, 0.0).elsewhere == 2
    table.absorb_debts([Debt(KEY, 7.0)], 0.0)
    level = table.level(KEY, 0.0)
    assert (level.elsewhere, level.owes, level.full_s) == (6, 2, 7.0)
    table.absorb([Spent(KEY, 3)], 0.0)
    table.charge(KEY, 1, 0.0)
    assert (table.level(KEY, 0.0).elsewhere, table.level(KEY, 0.0).full_s) == (6, 8.0)


class Worker:
    """One worker of a relay, the call that it has in flight, and what it has heard."""

    def __init__(self) -> None:
        self.table = buckets()
        self.in_flight: list[Spent[int]] | None = None
        self.answer: list[Debt[int]] | None = None
        self.sent_at = 0.0
        self.answer_knows = Counter[int]()
        self.heard_of_store = Counter[int]()
        self.heard_of_workers = Counter[int]()
        self.since = {"store": 0.0, "workers": 0.0}
        """When the first token was spent that was not handed out."""
        self.flies_since = 0.0


STEPS_S = [0.0, 0.0, 0.0, 0.001, 0.01]
ACTIONS = ["spend"] * 4 + ["tell", "call"] * 3 + ["burst", "send", "arrive", "answer", "lose", "sweep", "rest", "wait"]


class World:
    """Two relays of two workers each, and a store."""

    def __init__(self) -> None:
        self.workers = [Worker() for _ in range(4)]
        self.now = 1_000.0
        self.of_store = 0.0
        self.of_one = 0.0
        """The tat of a single bucket for all."""
        self.delay_s = self.clipped = 0.0
        self.most_unheard = self.lost = 0
        self.told = [0] * 4
        self.admitted: list[tuple[float, int]] = []

    def step(self, number: int, action: str) -> None:
        """Let a worker act."""
        worker = self.workers[number]
        match action:
            case "spend" | "burst":
                for _ in range(9 if action == "burst" else 1):
                    self.spend(number)
            case "tell":
                self.tell(number)
            case "call":
                for part in ("send", "arrive", "answer"):
                    self.step(number, part)
            case "send" if worker.in_flight is None:
                worker.flies_since, worker.sent_at = worker.since["store"], self.now
                worker.in_flight = worker.table.changes()
            case "arrive" if worker.in_flight is not None and worker.answer is None:
                self.arrive(number, worker.in_flight)
            case "answer" if worker.answer is not None:
                worker.table.absorb_debts(worker.answer, worker.sent_at)
                worker.heard_of_store = worker.answer_knows
                worker.in_flight = worker.answer = None
            case "lose" if worker.in_flight is not None:
                self.lost += sum(change.tokens for change in worker.in_flight)
                worker.in_flight = worker.answer = None
            case "sweep":
                worker.table.sweep(self.now)
            case "rest":
                for each in range(4):
                    self.tell(each)
                    self.step(each, "call")
                self.now += number * INTERVAL_S
            case "wait":
                self.now += INTERVAL_S

    def spend(self, number: int) -> None:
        """Try to spend a token."""
        worker, now = self.workers[number], self.now
        waits = {"store": worker.table.pending, "workers": len(worker.table.for_workers)}
        if not worker.table.spend(KEY, now).allowed:
            return
        worker.since |= {name: now for name, count in waits.items() if not count}
        self.of_one = max(self.of_one, now) + INTERVAL_S
        self.admitted.append((now, number))
        made = Counter(each for _, each in self.admitted)
        unheard = [
            sum(made[each] - heard[each] for each in range(4) if each != number)
            for heard in (worker.heard_of_store, worker.heard_of_workers)
        ]
        self.most_unheard = max(self.most_unheard, min(unheard))

    def tell(self, number: int) -> None:
        """Have the other worker of the relay hear of it."""
        worker, other = self.workers[number], self.workers[number ^ 1]
        changes = worker.table.for_workers.take(9)
        if changes:
            self.delay_s = max(self.delay_s, self.now - worker.since["workers"])
            other.table.absorb(changes, self.now)
            other.heard_of_workers[number] += changes[0].tokens

    def arrive(self, number: int, changes: list[Spent[int]]) -> None:
        """Have the store add tokens up."""
        worker, now, tokens = self.workers[number], self.now, sum(change.tokens for change in changes)
        self.told[number] += tokens
        charged = max(self.of_store, now) + tokens * INTERVAL_S
        self.clipped += max(0.0, charged - now - FULL_S - DEBT_S) / INTERVAL_S
        if tokens:
            self.delay_s = max(self.delay_s, now - worker.flies_since)
            self.of_store = min(charged, now + FULL_S + DEBT_S)
        worker.answer = [Debt(KEY, self.of_store - now)] if tokens else []
        worker.answer_knows = Counter(dict(enumerate(self.told))) if tokens else worker.heard_of_store


@pytest.mark.parametrize("seed", range(10))
def test_nothing_counts_twice_and_the_bound_holds(seed: int) -> None:
    """In any interleaving of what workers tell each other, of charges, debts and losses.

    No bucket is emptier than one bucket for all would be, but for the time that news were on their way. And no window
    sees more than that one would let through, but for what the worker that admits has not heard in the better of both
    ways, and for what was lost.
    """
    random = Random(seed)
    for _ in range(30):
        world = World()
        for _ in range(random.randint(10, 80)):
            world.now += random.choice(STEPS_S)
            world.step(random.randrange(4), random.choice(ACTIONS))
            for worker in world.workers:
                assert tat(worker.table) <= world.of_one + world.delay_s + 1e-6
        over = world.most_unheard + world.lost + world.clipped
        for last, (until, _) in enumerate(world.admitted):
            for first, (since, _) in enumerate(world.admitted[: last + 1]):
                assert last - first + 1 <= QUOTA.burst + over + (until - since + 2 * RESOLUTION_S) / INTERVAL_S


def test_forgetting_grants_nothing_and_takes_nothing() -> None:
    """Sweeps at any time: what a worker says is still known to be in a debt until that is paid."""
    table, now = buckets(), 0.0
    table.absorb_debts([Debt(KEY, FULL_S + DEBT_S)], now)
    while now < FULL_S + DEBT_S - 1.0:
        now += 1.0
        table.sweep(now)
        table.absorb([Spent(KEY, 1)], now)
        assert tat(table) == FULL_S + DEBT_S
    for _ in range(60):
        now += 1.0
        table.sweep(now)
    assert len(table) == len(table._of_relay) == 0
    assert table.spend(KEY, now, 5).allowed


def test_memory_is_bounded() -> None:
    """There is at most one tat beside each that is kept anyway, whatever the store and the workers say."""
    table = buckets()
    for key in range(1_000, 9_000):
        table.absorb_debts([Debt(key, 9.0)], 0.0)
        table.absorb([Spent(key, 1)], 0.0)
        table.spend(key, 0.0)
    assert len(table) <= MIN_TRACKED
    assert len(table._of_relay) <= MIN_TRACKED
    assert len(table.for_workers) <= MIN_TRACKED


def test_workers_without_a_cluster_add_up() -> None:
    """If the store never answers, its buckets are those of workers alone."""
    one, other = buckets(), buckets()
    for _ in range(2):
        assert one.spend(KEY, 0.0).allowed
    other.absorb(one.for_workers.take(9), 0.0)
    assert [other.spend(KEY, 0.0).allowed for _ in range(4)] == [True] * 3 + [False]
