"""Counts, against a scan without limits and against a model."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_filters import A, B, C, filters, make_event
from tests.support.stored_events import EVERYBODY, WALL_S, FilledStore, always, matching, never, stored_lists, views

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.hll import Registers, offset_of
from pyryrelay.nostr.storage.sqlite.queries import counting as counting_module
from pyryrelay.nostr.storage.visibility import View


def fresh(number: int) -> str:
    """Return an id."""
    return hashlib.sha256(str(number).encode()).hexdigest()


@given(
    stored_lists(), st.lists(filters(), min_size=1, max_size=3), views, st.sampled_from([1, 4, 1000]), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_it_counts_what_the_filters_match(
    stored: list[Event], asked: list[Filter], view: View, max_count: int, hll: bool, is_hurried: bool
) -> None:
    """Distinct events are counted, without any limit but that of the relay, and only what may be seen."""
    counting = FilledStore(stored).reader.count(asked, view, max_count, hll)
    while not counting.done:
        counting.step(always if is_hurried else never)
    found = {event.id: event for filter_ in asked for event in matching(stored, filter_, view)}
    assert counting.count == min(len(found), max_count)
    assert counting.is_approximate == (len(found) > max_count)
    offset = offset_of(asked[0])
    if hll and len(asked) == 1 and offset is not None and not counting.is_approximate:
        registers = Registers(offset)
        for event in found.values():
            registers.add(event.pubkey)
        assert counting.hll == registers.hex()
    else:
        assert counting.hll is None


@pytest.mark.parametrize(
    ("filter_", "per_event"),
    [
        (Filter(), 1),
        (Filter(kinds=(1,)), 1),
        (Filter(authors=(B,)), 1),
        (Filter(tags=(("t", ("x",)),)), 1),
        (Filter(tags=(("p", (A,)),)), 2),
    ],
)
def test_indexes_are_enough_where_they_can_be(filter_: Filter, per_event: int) -> None:
    """No event is loaded but for values that have to be compared."""
    store = FilledStore(make_event(id=fresh(n), tags=[["t", "x"], ["p", A]]) for n in range(500))
    counting = store.count(filter_)
    assert counting.count == 500
    assert 500 * per_event <= counting.work < 500 * per_event + 20


def test_more_kinds_than_are_looked_at_one_by_one() -> None:
    """A store with very many kinds is counted by loading the events."""
    store = FilledStore(make_event(id=fresh(n), kind=n) for n in range(300))
    counting = store.count(Filter(), view=View(frozenset(), frozenset({4}), WALL_S))
    assert (counting.count, counting.work > 600) == (299, True)


@pytest.mark.parametrize(("max_count", "count", "is_approximate"), [(4, 4, True), (5, 5, False), (6, 5, False)])
def test_counting_stops_at_the_most(max_count: int, count: int, is_approximate: bool) -> None:
    """A count over the most is approximate, and has no registers."""
    store = FilledStore(make_event(id=fresh(n), tags=[["p", A]]) for n in range(5))
    counting = store.count(Filter(tags=(("p", (A,)),)), max_count=max_count, hll=True)
    assert (counting.count, counting.is_approximate) == (count, is_approximate)
    assert (counting.hll is None) is is_approximate


def test_registers_are_of_the_authors() -> None:
    """One filter with a tag has registers, if they are asked for."""
    store = FilledStore(make_event(id=fresh(n), pubkey=fresh(n % 3), tags=[["p", A]]) for n in range(9))
    filter_ = Filter(tags=(("p", (A,)),))
    registers = Registers(offset_of(filter_) or 0)
    for n in range(3):
        registers.add(fresh(n))
    assert store.count(filter_, hll=True).hll == registers.hex()
    assert store.count(filter_, hll=False).hll is None
    assert store.count(filter_, filter_, hll=True).hll is None
    assert store.count(Filter(kinds=(1,)), hll=True).hll is None


def test_expired_events_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where they are few, nor where they are so many that events have to be loaded."""
    expired = [make_event(id=fresh(n), tags=[["expiration", str(WALL_S)]]) for n in range(9)]
    store = FilledStore([*expired, make_event(id=A)])
    assert store.count(Filter()).count == 1
    monkeypatch.setattr(counting_module, "MOST_EXPIRED", 5)
    assert store.count(Filter()).count == 1


def test_private_events_are_counted_for_their_parties_only() -> None:
    """An index tells nothing about who may see an event."""
    store = FilledStore([make_event(id=A, kind=4, tags=[["p", C]]), make_event(id=B, kind=4)])
    assert store.count(Filter()).count == 0
    assert store.count(Filter(kinds=(4,)), view=View(frozenset({C}), frozenset({4}), WALL_S)).count == 1


def test_work_is_limited() -> None:
    """A count that costs too much ends, and says why."""
    store = FilledStore(make_event(id=fresh(n), kind=n) for n in range(3000))
    counting = store.reader.count([Filter()], EVERYBODY, 1_000_000, False, 700)
    while not counting.done:
        counting.step(never)
    assert counting.over_work
    assert counting.work < 1500
    counting.step(never)
