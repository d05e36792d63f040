"""What is remembered of the latest events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_relay import ALICE, BOB, event, json_of

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter, matches
from pyryrelay.nostr.serving.recent import (
    MAX_EXAMINED,
    MAX_SWEPT,
    SWEPT_BY_ADD,
    TAG_BYTES,
    Ephemerals,
    RecentIds,
    Removals,
)


def kept(count: int = 3, **limits: int) -> tuple[Ephemerals, list[Event]]:
    """Return ephemeral events in memory, the oldest first, and the events."""
    ephemerals = Ephemerals()
    ephemerals.configure(limits.get("lifetime_s", 60), limits.get("max_bytes", 10**6))
    events = [event(str(number), kind=20001, created_at=1000 + number) for number in range(count)]
    for one in events:
        ephemerals.add(one, json_of(one), 0)
    return ephemerals, events


def test_ids_are_remembered_until_there_is_no_room() -> None:
    """The oldest id makes room; adding one again takes none."""
    ids = RecentIds(max_ids=2)
    for one in ("a", "b", "a", "c"):
        ids.add(one, 0)
    assert [ids.has(one, 0) for one in "abc"] == [False, True, True]
    assert len(ids) == 2


def test_ids_are_over_after_their_lifetime() -> None:
    """An id counts for less than its lifetime."""
    ids = RecentIds(lifetime_s=10)
    ids.add("a", 0)
    assert ids.has("a", 9.9)
    assert not ids.has("a", 10)


def test_ids_can_be_forgotten() -> None:
    """Ids of deleted events are discarded, unknown ones without an error."""
    ids = RecentIds()
    ids.add("a", 0)
    ids.add("b", 0)
    ids.discard(["a", "x"])
    assert not ids.has("a", 0)
    ids.clear()
    assert not ids.has("b", 0)


def test_nothing_is_kept_without_a_lifetime() -> None:
    """The default keeps no ephemeral event."""
    ephemerals = Ephemerals()
    one = event(kind=20001)
    ephemerals.add(one, json_of(one), 0)
    assert len(ephemerals) == 0
    assert ephemerals.matching([Filter()], 500, 500, 0)[0] == []


def test_ephemerals_are_over_after_their_lifetime() -> None:
    """An event is served for its lifetime, whether it was swept or not."""
    ephemerals, _ = kept(lifetime_s=60)
    assert len(ephemerals.matching([Filter()], 500, 500, 59)[0]) == 3
    assert ephemerals.matching([Filter()], 500, 500, 60)[0] == []
    ephemerals.sweep(60)
    assert (len(ephemerals), ephemerals.size) == (0, 0)


def test_the_oldest_ephemerals_make_room() -> None:
    """The bytes of all events together are bounded, also by a reload."""
    size = len(json_of(event("0", kind=20001, created_at=1000)))
    ephemerals, events = kept(max_bytes=2 * size)
    assert [one.event for one in ephemerals.matching([Filter()], 500, 500, 0)[0]] == [events[2], events[1]]
    ephemerals.configure(60, size)
    assert len(ephemerals) == 1


def test_tags_count_for_the_memory_that_their_index_takes() -> None:
    """Many short tags are bounded by bytes as well, and all is given back."""
    many = event(kind=20001, tags=[["t", str(number)] for number in range(100)])
    ephemerals = Ephemerals()
    ephemerals.configure(60, 10**6)
    ephemerals.add(many, json_of(many), 0)
    assert ephemerals.size == len(json_of(many)) + 100 * TAG_BYTES
    ephemerals.configure(60, ephemerals.size - 1)
    assert (len(ephemerals), ephemerals.size) == (0, 0)


def test_an_ephemeral_that_comes_again_is_kept_once() -> None:
    """Its lifetime begins anew."""
    ephemerals, events = kept()
    size = ephemerals.size
    ephemerals.add(events[0], json_of(events[0]), 30)
    assert (len(ephemerals), ephemerals.size) == (3, size)
    assert [one.event for one in ephemerals.matching([Filter()], 500, 500, 60)[0]] == [events[0]]


def test_sweeping_is_bounded_and_adding_sweeps_too() -> None:
    """What is over is not forgotten all at once, and it does not pile up."""
    ephemerals, _ = kept(MAX_SWEPT + 5)
    ephemerals.sweep(60)
    assert len(ephemerals) == 5
    one = event("new", kind=20001)
    ephemerals.add(one, json_of(one), 60)
    assert len(ephemerals) == 5 - SWEPT_BY_ADD + 1
    assert [found.event for found in ephemerals.matching([Filter()], 500, 500, 60)[0]] == [one]


def test_a_search_looks_at_so_many_events_and_no_more() -> None:
    """Searches for few candidates are exact nevertheless; the others find the newest part."""
    ephemerals, events = kept(MAX_EXAMINED + 100)
    rare = event("rare", kind=20002, created_at=1, tags=[["p", BOB], ["p"], ["expiration", "x"]])
    ephemerals.add(rare, json_of(rare), 0)
    found, work = ephemerals.matching([Filter(), Filter(authors=(BOB,)), Filter(kinds=(1,))], 10**6, 10**6, 0)
    assert (len(found), work) == (MAX_EXAMINED, MAX_EXAMINED)
    assert found[0].event is events[-1]
    for one in (Filter(ids=(rare.id,)), Filter(kinds=(20001, 20002), tags=(("p", (BOB, ALICE)),)), Filter(until=1)):
        found, work = ephemerals.matching([Filter(), one], 10**6, 10**6, 0)
        assert found[-1].event is rare
        assert work <= MAX_EXAMINED
    assert ephemerals.matching([Filter(kinds=(20001,), limit=3)], 500, 500, 0)[1] == 4


def test_counting_says_whether_it_looked_at_all() -> None:
    """Limits do not matter to it. What it did not look at might match; what a filter's times rule out does not."""
    ephemerals, _ = kept(MAX_EXAMINED)
    assert ephemerals.count([Filter(limit=1)], 0) == (MAX_EXAMINED, MAX_EXAMINED, True)
    rare = event("rare", kind=20002, created_at=1)
    ephemerals.add(rare, json_of(rare), 0)
    assert ephemerals.count([Filter(), Filter(kinds=(20002,))], 0) == (MAX_EXAMINED, MAX_EXAMINED, False)
    assert ephemerals.count([Filter(kinds=(20002,))], 0) == (1, 1, True)
    assert ephemerals.count([Filter(since=2)], 0) == (MAX_EXAMINED, MAX_EXAMINED, True)
    assert ephemerals.count([Filter(until=1)], 0, lambda one: one is not rare) == (0, 1, True)
    assert ephemerals.count([Filter(kinds=(1,))], 0) == (0, 0, True)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(20000, 20002),
            st.sampled_from([ALICE, BOB]),
            st.lists(st.sampled_from([("p", ALICE), ("p", BOB), ("t", "x")]), max_size=3),
        ),
        max_size=8,
    ),
    st.lists(
        st.builds(
            Filter,
            authors=st.sampled_from([None, (), (ALICE,), (ALICE, BOB)]),
            kinds=st.sampled_from([None, (20000,), (20001, 20002), (1,)]),
            tags=st.sampled_from([(), (("p", (ALICE, BOB)),), (("p", (BOB,)), ("t", ("x", "y")))]),
            since=st.none() | st.integers(0, 3),
            until=st.none() | st.integers(0, 3),
            limit=st.none() | st.integers(0, 3),
        ),
        max_size=3,
    ),
    st.integers(1, 4),
)
def test_all_fields_of_filters_are_looked_at(
    drafts: list[tuple[int, int, str, list[tuple[str, str]]]], filters: list[Filter], most: int
) -> None:
    """The answer is what a search through all events would find, whatever the filters name."""
    ephemerals = Ephemerals()
    ephemerals.configure(60, 10**6)
    events = [
        event(str(number), kind=kind, author=author, created_at=at, tags=tags)
        for number, (at, kind, author, tags) in enumerate(drafts)
    ]
    for one in events:
        ephemerals.add(one, json_of(one), 0)
    ordered = sorted(events, key=lambda draft: (-draft.created_at, draft.id))
    expected: set[str] = set()
    for wish in filters:
        limit = most if wish.limit is None else min(wish.limit, most)
        if limit > 0:
            expected |= {match.id for match in [e for e in ordered if matches(wish, e)][: limit + 1]}
    found, _ = ephemerals.matching(filters, most, most, 0)
    assert [one.event.id for one in found] == [one.id for one in ordered if one.id in expected]
    all_matches = {one.id for one in events if any(matches(wish, one) for wish in filters)}
    assert ephemerals.count(filters, 0)[::2] == (len(all_matches), True)
    ephemerals.sweep(60)
    assert (len(ephemerals), ephemerals.size) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(20000, 20002)), max_size=8),
    st.lists(st.tuples(st.sampled_from([None, (20000,), (20001, 20002)]), st.none() | st.integers(0, 3)), max_size=3),
    st.integers(1, 4),
)
def test_answers_are_newest_first_and_each_filter_has_its_limit(
    drafts: list[tuple[int, int]], wanted: list[tuple[tuple[int, ...] | None, int | None]], most: int
) -> None:
    """The answer is the union of the newest of each filter, and one more of each, in order, without repeats."""
    ephemerals = Ephemerals()
    ephemerals.configure(60, 10**6)
    events = {event(str(number), kind=kind, created_at=at) for number, (at, kind) in enumerate(drafts)}
    for one in events:
        ephemerals.add(one, json_of(one), 0)
    filters = [Filter(kinds=kinds, limit=limit) for kinds, limit in wanted]
    ordered = sorted(events, key=lambda draft: (-draft.created_at, draft.id))
    expected: set[str] = set()
    for wish in filters:
        limit = most if wish.limit is None else min(wish.limit, most)
        if limit > 0:
            expected |= {match.id for match in [e for e in ordered if matches(wish, e)][: limit + 1]}
    found = ephemerals.matching(filters, most, most, 0)[0]
    assert [one.event.id for one in found] == [one.id for one in ordered if one.id in expected]


def test_removals_count_for_what_began_before_them() -> None:
    """One is not remembered for those that begin later; there are only so many."""
    removals = Removals(max_ids=2)
    removals.add(["a"], 5)
    assert (removals.has("a", 5), removals.has("a", 5.1), removals.has("b", 0)) == (True, False, False)
    removals.add(["b", "c"], 6)
    assert (removals.has("a", 5), len(removals)) == (False, 2)
    removals.clear()
    assert not removals


def test_what_is_not_shown_uses_up_no_limit() -> None:
    """A limit counts what the client may see."""
    ephemerals, events = kept()
    found = ephemerals.matching([Filter(limit=1)], 500, 500, 0, lambda one: one.id != events[2].id)[0]
    assert [one.event for one in found] == [events[1], events[0]]
