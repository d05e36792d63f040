"""Buckets that several processes share: what they exchange adds up, and is all that they let through."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.keys import ADDRESS_LADDER, address_key
from pyryrelay.guard.rate.buckets import MIN_TRACKED, Tracking
from pyryrelay.guard.rate.cluster_buckets import LATE_S, ClusterBuckets, Debt, Spent
from pyryrelay.guard.rate.gcra import RESOLUTION_S, decide
from pyryrelay.guard.rate.ladder import HashLadder
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.tables import ShardedDict, SortedTable

QUOTA = Quota.parse("1/second burst 5")
INTERVAL_S, FULL_S = QUOTA.emission_interval_s, QUOTA.full_after_s
KEYS = st.integers(100, 103)
SPENT = st.lists(st.builds(Spent, KEYS, st.integers(1, 4)), max_size=8)
DEBTS = st.lists(st.builds(Debt, KEYS, st.floats(0.0, 12.0)), max_size=8)


def cluster(quota: Quota = QUOTA, debt_s: float | None = None) -> ClusterBuckets[int]:
    """Return the buckets of one process, all full."""
    return ClusterBuckets(quota, Tracking(MIN_TRACKED, HashLadder([0])), debt_s)


def spend(table: ClusterBuckets[int], key: int, now: float, tokens: int) -> int:
    """Try to spend tokens one by one; return how many there were."""
    return sum(table.spend(key, now).allowed for _ in range(tokens))


def tats(table: ClusterBuckets[int], keys: range = range(100, 104)) -> list[float]:
    """Return the tat of each key, long ago for a full bucket."""
    return [table.next_place(key, 0.0)[1] for key in keys]


def test_changes_are_what_was_let_through() -> None:
    """Each token that was spent here is handed out once, oldest key first; refusals and absorbed tokens are not."""
    table = cluster()
    assert table.changes() == []
    assert spend(table, 101, 0.0, 9) == 5
    assert table.spend(100, 0.0, 3).allowed
    table.spend(101, 1.0)
    table.absorb([Spent(102, 4)], 1.0)
    table.absorb_debts([Debt(103, 4.0)], 1.0)
    assert table.changes() == [Spent(101, 6), Spent(100, 3)]
    assert table.changes() == []
    table.spend(101, 2.0)
    assert table.changes() == [Spent(101, 1)]


def test_changes_come_in_portions() -> None:
    """However many keys have changed, a call hands out at most as many as it is asked for."""
    table = cluster()
    for key in range(450):
        table.spend(key, 0.0)
    assert [len(table.changes()) for _ in range(4)] == [200, 200, 50, 0]
    for key in range(450):
        table.spend(key, 0.0)
    assert table.changes(2) == [Spent(0, 1), Spent(1, 1)]


def test_a_level_tells_what_others_have_spent() -> None:
    """A debt and absorbed tokens are theirs, what was spent here is not; it comes back like all else."""
    table = cluster()
    spend(table, 100, 0.0, 2)
    assert (table.level(100, 0.0).elsewhere, table.level(100, 0.0).tokens) == (0, QUOTA.burst - 2)
    table.changes()
    table.absorb_debts([Debt(100, (QUOTA.burst + 3) * INTERVAL_S)], 0.0)
    level = table.level(100, 0.0)
    assert (level.tokens, level.owes, level.elsewhere) == (0, 3, QUOTA.burst + 1)
    assert level.full_s == pytest.approx((QUOTA.burst + 3) * INTERVAL_S)
    table.absorb([Spent(100, 1)], 0.0)
    assert table.level(100, 0.0).elsewhere == QUOTA.burst + 2
    assert table.level(100, 2 * INTERVAL_S).elsewhere == QUOTA.burst + 2
    assert table.level(100, 3 * INTERVAL_S).elsewhere == QUOTA.burst + 1
    assert table.level(100, 1e3) == (QUOTA, QUOTA.burst, 0.0, 100, 0.0, 0)


def test_what_was_spent_here_is_not_told_as_a_debt() -> None:
    """The store's answer to our own tokens, late or not, has nothing of others."""
    table = cluster()
    spend(table, 100, 0.0, 2)
    table.changes()
    table.absorb_debts([Debt(100, 2 * INTERVAL_S)], LATE_S / 2)
    spend(table, 100, 0.5, 1)
    table.absorb_debts([Debt(100, 1.5 * INTERVAL_S)], 0.5)
    table.charge(100, 1, 0.5)
    assert table.level(100, 0.5).elsewhere == 0
    assert len(table._alone) == 0


STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, INTERVAL_S, FULL_S, 30.0]), st.integers(0, 3), SPENT, st.booleans()),
    max_size=30,
)


@given(steps=STEPS)
def test_a_level_is_compared_with_that_of_this_process_alone(
    steps: list[tuple[float, int, list[Spent[int]], bool]],
) -> None:
    """What others have spent is what a bucket that had not heard of them would have more, at any time."""
    table, now, alone = cluster(), 1_000.0, dict[int, float]()
    for step_s, count, changes, sweeps in steps:
        now += step_s
        if sweeps:
            table.sweep(now)
        for key in range(100, 104):
            for _ in range(spend(table, key, now, count)):
                alone[key] = max(alone.get(key, now), now) + INTERVAL_S
        table.absorb(changes, now)
        for key, tat in zip(range(100, 104), tats(table), strict=True):
            level = table.level(key, now)
            others_s = max(0.0, tat - now) - max(0.0, alone.get(key, now) - now)
            assert level.elsewhere * INTERVAL_S == pytest.approx(others_s, abs=INTERVAL_S / 2 + RESOLUTION_S)
            assert level.full_s == max(0.0, tat - now)
    table.sweep(now + 1e3)
    table.sweep(now + 2e3)
    assert len(table._alone) == 0


@pytest.mark.parametrize("new_table", [ShardedDict, SortedTable])
def test_memory_for_changes_is_bounded(new_table: type[ShardedDict[float] | SortedTable]) -> None:
    """Of more keys than may be tracked, those that came first are handed out."""
    table = ClusterBuckets(QUOTA, Tracking(MIN_TRACKED, ADDRESS_LADDER, new_table))
    keys = [address_key(IPv4Address(number << 8), 32) for number in range(3_000)]
    for number, key in enumerate(keys):
        now = float(number)
        table.sweep(now)
        assert table.spend(key, now).allowed
        assert table.spend(keys[0], now).allowed
    changes = table.changes(5_000)
    assert [change.key for change in changes] == keys[:MIN_TRACKED]
    assert changes[0] == Spent(keys[0], 3_001)


@given(before=SPENT, changes=SPENT, order=st.randoms(use_true_random=False), size=st.integers(1, 3))
def test_absorbing_adds_up(before: list[Spent[int]], changes: list[Spent[int]], order: Random, size: int) -> None:
    """In whatever order and portions changes arrive, the buckets are the same, up to the longest debt."""
    one, other = cluster(), cluster()
    for table in (one, other):
        table.absorb(before, 0.0)
    one.absorb(changes, 1.0)
    order.shuffle(changes)
    for first in range(0, len(changes), size):
        other.absorb(changes[first : first + size], 1.0)
    sums = Counter[int]()
    for change in changes:
        sums[change.key] += change.tokens
    assert tats(other) == pytest.approx(tats(one))
    other = cluster()
    other.absorb(before, 0.0)
    other.absorb([Spent(key, tokens) for key, tokens in sums.items()], 1.0)
    assert tats(other) == pytest.approx(tats(one))
    assert max(tats(one)) <= 1.0 + 2 * FULL_S


def test_absorbing_a_change_twice_counts_twice() -> None:
    """Tokens are added, so a change must not be delivered again."""
    table = cluster()
    for left in (3, 1):
        table.absorb([Spent(100, 2)], 0.0)
        assert table.next_place(100, 0.0)[1] == FULL_S - left * INTERVAL_S


@given(before=SPENT, debts=DEBTS, order=st.randoms(use_true_random=False), repeated=st.integers(0, 8))
def test_the_latest_debt_counts(before: list[Spent[int]], debts: list[Debt[int]], order: Random, repeated: int) -> None:
    """In whatever order debts arrive, and how often, the buckets are the same, and none is fuller than before."""
    one, other = cluster(), cluster()
    for table in (one, other):
        table.absorb(before, 0.0)
    was = tats(one)
    one.absorb_debts(debts, 1.0)
    debts += debts[:repeated]
    order.shuffle(debts)
    for debt in debts:
        other.absorb_debts([debt], 1.0)
    assert tats(one) == tats(other)
    for key, tat, is_now in zip(range(100, 104), was, tats(one), strict=True):
        owed_tat = 1.0 + max((debt.seconds for debt in debts if debt.key == key), default=0.0)
        assert is_now == (max(tat, min(owed_tat, 1.0 + 2 * FULL_S)) if owed_tat > 1.0 else tat)


def test_what_is_not_told_yet_comes_on_top_of_a_debt() -> None:
    """The store cannot know of it; what was handed out is in the debt."""
    table = cluster()
    spend(table, 100, 0.0, 2)
    table.changes()
    spend(table, 100, 0.0, 1)
    table.absorb_debts([Debt(100, 2.0)], 0.0)
    assert tats(table)[0] == 3.0
    table.changes()
    table.absorb_debts([Debt(100, 3.0)], 0.0)
    assert tats(table)[0] == 3.0


def test_a_debt_goes_beyond_an_empty_bucket_and_is_paid() -> None:
    """What others spent too much is waited for, at most for as long as a debt may be."""
    table = cluster(debt_s=2.0)
    spend(table, 100, 0.0, 5)
    table.absorb([Spent(100, 1)], 0.0)
    assert table.wait_s(100, 0.0) == 2.0
    table.absorb([Spent(100, 40)], 0.0)
    table.absorb_debts([Debt(100, 60.0)], 0.0)
    assert table.wait_s(100, 0.0) == 3.0
    assert not table.spend(100, 2.9).allowed
    assert table.spend(100, 3.0).allowed


def test_what_is_absorbed_shares_as_what_is_spent() -> None:
    """Without room it goes to the shared bucket, and from there to newcomers as soon as there is room again."""
    table = cluster(Quota.parse("1/day burst 2"))
    for key in range(1_000, 1_000 + MIN_TRACKED - 1):
        table.spend(key, 0.0)
    table.absorb([Spent(100, 1)], 0.0)
    assert table.spend(101, 0.0).allowed
    assert not table.spend(102, 0.0).allowed
    assert len(table) == MIN_TRACKED
    table.resize(4_000)
    assert not table.spend(103, 0.0).allowed
    for key in range(5_000, 9_000):
        table.absorb([Spent(key, 1)], 0.0)
    table.absorb_debts([Debt(key, 10.0) for key in range(9_000, 10_000)], 0.0)
    assert len(table) == 3_999


@given(
    steps=st.lists(
        st.tuples(
            st.one_of(st.sampled_from([0.0, 0.5, FULL_S, 2 * FULL_S, 2 * FULL_S + 1.0]), st.floats(0.0, 9.0)),
            st.lists(KEYS, max_size=4),
            SPENT,
            DEBTS,
            st.booleans(),
            st.booleans(),
        ),
        max_size=30,
    ),
    start=st.floats(0.0, 1e6),
)
def test_forgetting_loses_nothing(
    steps: list[tuple[float, list[int], list[Spent[int]], list[Debt[int]], bool, bool]], start: float
) -> None:
    """Whenever it sweeps, a table decides and hands out as one that never forgets."""
    table, now = cluster(), start
    owed, untold, told, admitted = dict[int, float](), Counter[int](), Counter[int](), Counter[int]()
    for step_s, keys, changes, debts, sweeps, tells in steps:
        now += step_s
        if sweeps:
            table.sweep(now)
        table.absorb(changes, now)
        for key, tokens in changes:
            owed[key] = min(max(owed.get(key, now), now) + tokens * INTERVAL_S, now + 2 * FULL_S)
        table.absorb_debts(debts, now)
        for key, seconds in debts:
            owed_tat = min(now + seconds + untold[key] * INTERVAL_S, now + 2 * FULL_S)
            owed[key] = max(owed.get(key, now), owed_tat)
        for key in keys:
            decision = decide(QUOTA, owed.get(key), now)
            assert table.spend(key, now).allowed is decision.allowed
            if decision.allowed:
                owed[key] = decision.tat
                untold[key] += 1
                admitted[key] += 1
        if tells:
            for key, tokens in table.changes():
                told[key] += tokens
            untold.clear()
    for key, tokens in table.changes():
        told[key] += tokens
    assert told == admitted


class Store:
    """What adds up the tokens of all processes, as the script in Redis does: a tat per key, on a clock of its own."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s
        self.tats: dict[int, float] = {}

    def charge(self, changes: list[Spent[int]], now: float) -> list[Debt[int]]:
        """Add tokens; return what each bucket owes now."""
        time_s = now + self.ahead_s
        for key, tokens in changes:
            tat = max(self.tats.get(key, time_s), time_s) + tokens * INTERVAL_S
            self.tats[key] = min(tat, time_s + 2 * FULL_S)
        return [Debt(change.key, self.tats[change.key] - time_s) for change in changes]


ROUNDS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0.0, 0.1, INTERVAL_S, FULL_S, 30.0]), st.floats(0.0, 3.0)),
        st.lists(st.integers(0, 2), min_size=4, max_size=4),
        st.booleans(),
    ),
    max_size=60,
)


def most_in_any_window(admitted: list[float], over: int) -> bool:
    """Say whether every window is within burst, rate, and so many more."""
    return all(
        last - first + 1 <= QUOTA.burst + over + (until - since + 2 * RESOLUTION_S) / INTERVAL_S
        for first, since in enumerate(admitted)
        for last, until in enumerate(admitted[first:], first)
    )


@given(rounds=ROUNDS, count=st.integers(1, 3), start=st.floats(0.0, 1e4))
def test_processes_that_tell_each_other_are_one(
    rounds: list[tuple[float, list[int], bool]], count: int, start: float
) -> None:
    """Over-admission is at most what the others let through between two exchanges, in all and for ever."""
    processes, now, admitted = [cluster() for _ in range(count)], start, list[float]()
    for step_s, attempts, sweeps in rounds:
        now += step_s
        for process, tokens in zip(processes, attempts, strict=False):
            admitted += [now] * spend(process, 100, now, tokens)
        told = [process.changes() for process in processes]
        for number, process in enumerate(processes):
            if sweeps:
                process.sweep(now)
            for other, changes in enumerate(told):
                if other != number:
                    process.absorb(changes, now)
        assert all(one == pytest.approx(other) for one, other in pairwise(max(tats(one)[0], now) for one in processes))
    assert most_in_any_window(admitted, (count - 1) * 2)


@given(rounds=ROUNDS, count=st.integers(1, 3), start=st.floats(0.0, 1e4), ahead_s=st.sampled_from([0.0, -7.0, 1e5]))
def test_processes_with_a_store_are_one(
    rounds: list[tuple[float, list[int], bool]], count: int, start: float, ahead_s: float
) -> None:
    """The store's answers keep to the same bound, whatever its clock says and however rarely a process hears them."""
    processes, store, now, admitted = [cluster() for _ in range(count)], Store(ahead_s), start, list[float]()
    for step_s, attempts, sweeps in rounds:
        now += step_s
        for process, tokens in zip(processes, attempts, strict=False):
            admitted += [now] * spend(process, 100, now, tokens)
        for process in processes:
            if sweeps:
                process.sweep(now)
            process.absorb_debts(store.charge(process.changes(), now), now)
    assert most_in_any_window(admitted, (count - 1) * 2)


def test_without_debts_each_process_gives_away_each_token() -> None:
    """Why a tat may lie beyond an empty bucket: four processes would let through four times the rate."""
    admitted = dict[float, int]()
    for debt_s in (0.0, FULL_S):
        processes = [cluster(debt_s=debt_s) for _ in range(4)]
        admitted[debt_s] = 0
        for second in range(600):
            for process in processes:
                admitted[debt_s] += spend(process, 100, float(second), 1)
            told = [process.changes() for process in processes]
            for number, process in enumerate(processes):
                for changes in told[:number] + told[number + 1 :]:
                    process.absorb(changes, float(second))
    assert admitted[0.0] > 4 * 599
    assert admitted[FULL_S] <= 599 + QUOTA.burst + 3


class Member:
    """One process: its buckets, and the call that it has in flight, with what the store answered."""

    def __init__(self) -> None:
        self.table = cluster(debt_s=3 * FULL_S)
        self.in_flight: list[Spent[int]] | None = None
        self.answer: list[Debt[int]] | None = None
        self.heard = Counter[int]()
        self.answer_knows = Counter[int]()


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.001, 0.3, INTERVAL_S, FULL_S]),
        st.integers(0, 3),
        st.sampled_from(["spend", "spend", "burst", "send", "arrive", "answer", "lose call", "lose answer"]),
    ),
    max_size=120,
)


@given(actions=ACTIONS, count=st.integers(2, 4))
def test_the_bound_holds_for_any_interleaving(actions: list[tuple[float, int, str]], count: int) -> None:
    """Over-admission is at most what a process has not heard of the others, and what was lost on its way.

    Calls and answers take any time, or never arrive; each process has one in flight. This is the bound of one process
    with ``(N - 1)*min(B, 1 + a*L)`` on top, where nothing is lost and others are heard after L seconds.
    """
    members, now = [Member() for _ in range(count)], 1_000.0
    tats, most_unheard, lost, clipped = dict[int, float](), 0, 0, 0.0
    told, admitted = [0] * count, list[tuple[float, int]]()
    for step_s, number, action in actions:
        now += step_s
        number %= count
        member = members[number]
        if action in ("spend", "burst"):
            for _ in range(9 if action == "burst" else 1):
                if member.table.spend(100, now).allowed:
                    admitted.append((now, number))
                    made = Counter(each for _, each in admitted)
                    others = sum(made[each] - member.heard[each] for each in range(count) if each != number)
                    most_unheard = max(most_unheard, others)
        elif action == "send" and member.in_flight is None:
            member.in_flight = member.table.changes()
        elif action == "arrive" and member.in_flight is not None and member.answer is None:
            tokens = sum(change.tokens for change in member.in_flight)
            told[number] += tokens
            tat = max(tats.get(100, now), now) + tokens * INTERVAL_S
            clipped += max(0.0, tat - now - 4 * FULL_S) / INTERVAL_S
            tats[100] = min(tat, now + 4 * FULL_S)
            member.answer = [Debt(100, tats[100] - now)] if tokens else []
            member.answer_knows = Counter(dict(enumerate(told))) if tokens else member.heard
        elif action == "answer" and member.answer is not None:
            member.table.absorb_debts(member.answer, now)
            member.heard = Counter(member.answer_knows)
            member.in_flight = member.answer = None
        elif action == "lose answer" and member.answer is not None:
            lost += sum(change.tokens for change in member.in_flight or [])
            member.in_flight = member.answer = None
        elif action == "lose call" and member.in_flight is not None and member.answer is None:
            lost += sum(change.tokens for change in member.in_flight)
            member.in_flight = None
    for last, (until, _) in enumerate(admitted):
        for first, (since, _) in enumerate(admitted[: last + 1]):
            allowed = QUOTA.burst + most_unheard + lost + clipped + (until - since + 2 * RESOLUTION_S) / INTERVAL_S
            assert last - first + 1 <= allowed


def test_news_are_told_once() -> None:
    """A listener hears of the first change since the last were handed out, and of no refusal."""
    table, heard = cluster(), list[str]()
    table.ledger.on_change = lambda: heard.append("news")
    assert table.pending == 0
    spend(table, 100, 0.0, 9)
    spend(table, 101, 0.0, 1)
    assert (heard, table.pending) == (["news"], 2)
    table.changes(1)
    spend(table, 101, 0.0, 1)
    assert heard == ["news"]
    table.changes()
    spend(table, 101, 0.0, 1)
    assert heard == ["news"] * 2
