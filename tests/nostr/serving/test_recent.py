"""What is remembered of the latest events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_relay import event, json_of

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter, matches
from pyryrelay.nostr.serving.recent import Ephemerals, RecentIds, Removals


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
    assert ephemerals.matching([Filter()], 500, 500, 0) == []


def test_ephemerals_are_over_after_their_lifetime() -> None:
    """An event is served for its lifetime, whether it was swept or not."""
    ephemerals, _ = kept(lifetime_s=60)
    assert len(ephemerals.matching([Filter()], 500, 500, 59)) == 3
    assert ephemerals.matching([Filter()], 500, 500, 60) == []
    ephemerals.sweep(60)
    assert (len(ephemerals), ephemerals.size) == (0, 0)


def test_the_oldest_ephemerals_make_room() -> None:
    """The bytes of all events together are bounded, also by a reload."""
    size = len(json_of(event("0", kind=20001, created_at=1000)))
    ephemerals, events = kept(max_bytes=2 * size)
    assert [one.event for one in ephemerals.matching([Filter()], 500, 500, 0)] == [events[2], events[1]]
    ephemerals.configure(60, size)
    assert len(ephemerals) == 1


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
    found = ephemerals.matching(filters, most, most, 0)
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
    found = ephemerals.matching([Filter(limit=1)], 500, 500, 0, lambda one: one.id != events[2].id)
    assert [one.event for one in found] == [events[1], events[0]]
