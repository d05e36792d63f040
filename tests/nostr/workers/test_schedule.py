"""Readers are fair by client, and new queries go first."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.workers.schedule import (
    HEAD_START_S,
    MAX_ENTRIES,
    MAX_REMEMBERED,
    PREFERENCE,
    YOUNG_S,
    FairSchedule,
)

SLICE_S = 0.01


def add(schedule: FairSchedule[str, int], client: str, *queries: int, is_only: bool = False) -> None:
    """Add queries of a client."""
    for query in queries:
        schedule.add(client, query, is_only=is_only)


def run(schedule: FairSchedule[str, int], turns: int, *, ends: bool = False, took_s: float = SLICE_S) -> list[int]:
    """Run so many slices, and return whose turns they were. Queries go on for ever, or end in their first slice."""
    order = []
    for _ in range(turns):
        turn = schedule.take()
        if turn is None:
            break
        client, query = turn
        order.append(query)
        schedule.spent(client, took_s)
        if not ends:
            schedule.put_back(client, query, took_s, is_only=False)
    return order


def test_nothing_to_do() -> None:
    """An empty schedule says so."""
    schedule: FairSchedule[str, int] = FairSchedule()
    assert not schedule
    assert schedule.take() is None


def test_new_queries_of_a_client_go_first() -> None:
    """Every query of a client gets its first slice before any gets its second; then they take turns."""
    schedule: FairSchedule[str, int] = FairSchedule()
    for query in (1, 2, 3):
        add(schedule, "a", query)
    assert schedule
    assert run(schedule, 6) == [1, 2, 3, 1, 2, 3]


def test_a_new_client_waits_for_one_slice_at_most() -> None:
    """One client's hundred queries, new or paused, do not delay another's first."""
    schedule: FairSchedule[str, int] = FairSchedule()
    add(schedule, "greedy", *range(100))
    for turns in (0, 1, 57, 500):
        run(schedule, turns)
        add(schedule, f"newcomer {turns}", 1000, is_only=True)
        assert 1000 in run(schedule, 2)
        schedule.remove(f"newcomer {turns}", 1000)


def test_clients_with_one_query_go_before_those_with_many() -> None:
    """A client that has been given more than others is before them if it has only one query, while that is young."""
    schedule: FairSchedule[str, int] = FairSchedule()
    add(schedule, "modest", 0, is_only=True)
    assert run(schedule, 1, ends=True) == [0]
    for query in range(1, 10):
        add(schedule, f"greedy {query % 3}", query)
    assert schedule.take() is not None
    assert not schedule.is_outranked()
    assert not schedule.is_urgent()
    add(schedule, "modest", 0, is_only=True)
    assert schedule.is_outranked()
    assert schedule.take() == ("modest", 0)
    assert schedule.is_urgent()
    schedule.spent("modest", YOUNG_S)
    schedule.put_back("modest", 0, YOUNG_S, is_only=True)
    assert schedule.take() != ("modest", 0)


def test_what_goes_first_may_take_three_quarters_of_the_time() -> None:
    """Behind the head start, each rank leaves a part of the time to later ones."""
    schedule: FairSchedule[str, int] = FairSchedule()
    add(schedule, "young", 1)
    schedule.put_back("old", 2, YOUNG_S, is_only=True)
    turns: Counter[int] = Counter()
    for number in range(4000):
        add(schedule, f"only {number}", 0, is_only=True)
        turn = schedule.take()
        assert turn is not None
        turns[turn[1]] += 1
        schedule.spent(turn[0], YOUNG_S / 2)
        if turn[1]:
            schedule.put_back(*turn, 0.0 if turn[1] == 1 else YOUNG_S, is_only=False)
    assert abs(turns[0] - 4000 * PREFERENCE / (1 + PREFERENCE)) <= 2 * PREFERENCE * HEAD_START_S / YOUNG_S
    assert turns[1] >= 400
    assert turns[2] >= 150


def test_time_is_shared_by_client() -> None:
    """A client with many queries gets as much time as one with a single one, beyond their first slices."""
    schedule: FairSchedule[str, int] = FairSchedule()
    for query in range(1, 101):
        add(schedule, "greedy", query)
    add(schedule, "modest", 0)
    run(schedule, 210)
    turns = Counter(query == 0 for query in run(schedule, 1000))
    assert abs(turns[True] - turns[False]) <= 20


def test_new_queries_go_before_paused_ones_of_others() -> None:
    """A client whose share is not used up gets its new query in before the paused ones of several others."""
    schedule: FairSchedule[str, int] = FairSchedule()
    for query, client in enumerate("abcd"):
        add(schedule, client, query)
    run(schedule, 41)  # "a" has had its slice of this round
    add(schedule, "a", 9)
    assert run(schedule, 1) == [9]


def test_a_slice_lasts_until_what_goes_first_is_due() -> None:
    """What has used its head start up goes on as soon as the others have had their part, not a whole slice later."""
    schedule: FairSchedule[str, int] = FairSchedule()
    schedule.put_back("old", 2, YOUNG_S, is_only=True)
    add(schedule, "young", 1)
    assert schedule.take() == ("young", 1)
    schedule.spent("young", PREFERENCE * (HEAD_START_S + 0.001))
    add(schedule, "young", 1)
    assert schedule.take() == ("old", 2)
    assert not schedule.is_outranked(0.0009)
    assert schedule.is_outranked(0.0011)


def test_new_queries_without_end_do_not_stop_others() -> None:
    """A client that opens one new query after the other, each of a whole slice, leaves another its part."""
    schedule: FairSchedule[str, int] = FairSchedule()
    add(schedule, "patient", 0)
    run(schedule, 1)
    turns: Counter[str] = Counter()
    for query in range(1, 1001):
        add(schedule, "flood", query)
        turn = schedule.take()
        assert turn is not None
        turns[turn[0]] += 1
        schedule.spent(turn[0], SLICE_S)
        if turn[0] == "patient":
            schedule.put_back(*turn, SLICE_S, is_only=False)
    assert abs(PREFERENCE * turns["patient"] - turns["flood"]) <= 40


def test_absence_is_not_saved_up() -> None:
    """A client that comes back takes turns with the others, whatever they were given meanwhile."""
    schedule: FairSchedule[str, int] = FairSchedule()
    add(schedule, "early", 1)
    run(schedule, 1)
    schedule.remove("early", 1)
    add(schedule, "steady", 2)
    run(schedule, 100)
    add(schedule, "early", 1)
    assert Counter(run(schedule, 100))[2] >= 45


def test_coming_back_does_not_clear_an_account() -> None:
    """A client that ends its query and opens another is charged for the first, while others have queries."""
    schedule: FairSchedule[str, int] = FairSchedule()
    add(schedule, "a", 1)
    add(schedule, "b", *range(2, 12))
    assert run(schedule, 1, ends=True, took_s=1.0) == [1]
    add(schedule, "a", 100)
    assert 100 not in run(schedule, 10, ends=True, took_s=YOUNG_S / 4)


def test_removed_queries_do_not_run() -> None:
    """Queries can be removed whether they are new or paused, and removing what is not there does nothing."""
    schedule: FairSchedule[str, int] = FairSchedule()
    add(schedule, "a", 1)
    add(schedule, "a", 2)
    run(schedule, 1)
    schedule.remove("a", 1)
    schedule.remove("a", 2)
    schedule.remove("a", 2)
    schedule.remove("nobody", 2)
    assert not schedule
    assert schedule.take() is None


def test_memory_is_bounded() -> None:
    """Neither clients that are gone nor queries that were removed leave something behind for ever."""
    schedule: FairSchedule[str, int] = FairSchedule()
    for query in range(10 * MAX_REMEMBERED):
        add(schedule, f"client {query}", query)
        run(schedule, 1, ends=True)
        add(schedule, "same", -query)
        schedule.remove("same", -query)
        add(schedule, "waiting", query)
    for turns in schedule._ranks:
        assert len(turns._used_s) <= MAX_REMEMBERED
        assert len(turns._heap) <= MAX_ENTRIES + 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(0, 9)),
            st.tuples(st.just("remove"), st.sampled_from("abc"), st.integers(0, 9)),
            st.tuples(st.just("run"), st.sampled_from(("ends", "pauses")), st.integers(0, 3)),
        ),
        max_size=60,
    )
)
def test_every_query_has_its_turn(steps: list[tuple[str, str, int]]) -> None:
    """What was added and not removed is taken exactly once, and is what the schedule still has in the end."""
    schedule: FairSchedule[str, tuple[str, int]] = FairSchedule()
    there: set[tuple[str, tuple[str, int]]] = set()
    for verb, argument, number in steps:
        query = (argument, number)
        if verb == "add" and (argument, query) not in there:
            schedule.add(argument, query, is_only=number == 0)
            there.add((argument, query))
        elif verb == "remove":
            schedule.remove(argument, query)
            there.discard((argument, query))
        elif verb == "run":
            turn = schedule.take()
            assert (turn is None) == (not there)
            if turn is not None:
                assert turn in there
                schedule.spent(turn[0], number * SLICE_S)
                if argument == "pauses":
                    schedule.put_back(*turn, SLICE_S, is_only=False)
                else:
                    there.remove(turn)
    assert bool(schedule) == bool(there)
    rest = []
    while (turn := schedule.take()) is not None:
        rest.append(turn)
    assert len(rest) == len(there)
    assert set(rest) == there
