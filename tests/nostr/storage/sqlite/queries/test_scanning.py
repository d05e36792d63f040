"""Scans, against the most obvious way to answer a REQ."""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_filters import A, B, C, filters, make_event
from tests.support.stored_events import (
    EVERYBODY,
    LIMITS,
    WALL_S,
    FilledStore,
    always,
    expected,
    finish,
    in_order,
    matching,
    never,
    stored_lists,
    texts,
    views,
)

from pyryrelay.nostr.events import MAX_CREATED_AT, Event
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.reading import ScanLimits
from pyryrelay.nostr.storage.visibility import View

ALL = Filter()
_numbers = count()


def note(created_at: int = 100, *, id: str | None = None, **fields: Any) -> Event:  # noqa: A002
    """Return an event with an id of its own."""
    fresh = hashlib.sha256(str(next(_numbers)).encode()).hexdigest()
    return make_event(id=id or fresh, created_at=created_at, **fields)


all_limits = st.builds(
    ScanLimits,
    max_limit=st.sampled_from([1, 3, 500]),
    default_limit=st.sampled_from([2, 500]),
    max_results=st.sampled_from([None, 1, 4, 500]),
    max_work=st.none(),
    max_seq=st.none(),
)
many_filters = st.lists(filters(), min_size=1, max_size=3)


@given(
    stored_lists(), many_filters, views, all_limits, st.booleans(), st.sampled_from([1, 700, 1 << 20]), st.booleans()
)
def test_it_returns_what_the_filters_match_in_order_and_within_their_limits(
    stored: list[Event],
    asked: list[Filter],
    view: View,
    limits: ScanLimits,
    is_hurried: bool,
    max_bytes: int,
    pauses: bool,
) -> None:
    """The events are those of a slow model, whatever the size of the steps."""
    store = FilledStore(stored)
    scan = store.reader.scan(asked, view, limits)
    rows: list[bytes] = []
    while not scan.done:
        found = scan.step(always if is_hurried else never, max_bytes)
        assert len(found) <= 1 or sum(map(len, found)) <= max_bytes
        rows += found
        if pauses and found:
            scan.pause()
    assert rows == texts(expected(stored, asked, view, limits))
    assert not scan.over_work
    everything = {event.id for filter_ in asked for event in matching(stored, filter_, view)}
    if scan.hint == "finish":
        assert len(rows) == len(everything)
    elif scan.hint == "more":
        assert len(rows) < len(everything)
    else:
        # Only a limit that the client chose leaves that open.
        assert any(filter_.limit is not None and filter_.limit <= limits.max_limit for filter_ in asked)


@given(stored_lists(), stored_lists(), many_filters, st.data())
def test_changes_between_steps(
    stored: list[Event], later: list[Event], asked: list[Filter], data: st.DataObject
) -> None:
    """What is deleted is not sent any more, what is stored later is not sent, and the rest is, each once."""
    store = FilledStore(stored)
    open_filters = [Filter(f.ids, f.authors, f.kinds, f.tags, f.since, f.until) for f in asked]
    scan = store.reader.scan(open_filters, EVERYBODY, LIMITS)
    rows: list[bytes] = []
    gone: dict[str, int] = {}
    while not scan.done:
        rows += scan.step(always, 1)
        if data.draw(st.booleans()) and store.events:
            seq: int = data.draw(st.sampled_from(sorted(store.events)))
            gone[store.events[seq].id] = len(rows)
            store.remove(seq)
        if later:
            event = later.pop()
            if event.id not in {other.id for other in store.events.values()}:
                store.add(event)
    found = expected(stored, open_filters, EVERYBODY, LIMITS)
    kept = [event for event in found if event.id not in gone]
    assert [row for row in rows if row in set(texts(kept))] == texts(kept)
    for event, text in zip(found, texts(found), strict=True):
        assert event.id not in gone or text not in rows[gone[event.id] :]
    assert set(rows) <= set(texts(found))
    assert len(rows) == len(set(rows))


def test_ties_of_time_go_by_id_whatever_the_order_of_arrival() -> None:
    """Among events of one second, the smaller id is first, also where the limit cuts."""
    notes = [note(100) for _ in range(60)]
    store = FilledStore(notes)
    assert store.scan(Filter(limit=7)) == (texts(in_order(notes)[:7]), "more")


@pytest.mark.parametrize("created_at", [0, 2**31, 2**32, MAX_CREATED_AT])
def test_any_time(created_at: int) -> None:
    """Times up to 2^53-1 are found and sorted."""
    store = FilledStore([note(created_at), note(5)])
    rows, _ = store.scan(Filter(since=created_at, until=created_at))
    assert rows == texts([store.events[1]])
    assert store.scan(ALL)[0] == texts(in_order(store.events.values()))


def test_a_limit_of_one_filter_does_not_cut_another() -> None:
    """Each filter yields its newest events, and what two of them match is sent once."""
    old, new = note(1, kind=7), [note(10 + n) for n in range(3)]
    store = FilledStore([old, *new])
    rows, _ = store.scan(Filter(limit=1), Filter(kinds=(7,)), Filter(kinds=(1,), limit=2))
    assert rows == texts([new[2], new[1], old])


def test_limit_zero_looks_at_nothing() -> None:
    """A filter with limit 0 returns nothing and costs nothing; what it leaves out is not known."""
    store = FilledStore([note()])
    scan = store.reader.scan([Filter(limit=0)], EVERYBODY, LIMITS)
    assert finish(scan) == []
    assert (scan.hint, scan.work) == (None, 0)


@pytest.mark.parametrize(("stored", "sent", "hint"), [(3, 3, "finish"), (5, 5, "finish"), (6, 5, "more")])
def test_a_cap_gives_a_hint(stored: int, sent: int, hint: str) -> None:
    """The hint says whether the relay's cap has left out anything."""
    store = FilledStore([note(100 + n) for n in range(stored)])
    rows, given_hint = store.scan(ALL, limits=LIMITS._replace(default_limit=5))
    assert (len(rows), given_hint) == (sent, hint)


@pytest.mark.parametrize(
    ("limit", "sent", "hint"), [(None, 54, "more"), (9, 9, "more"), (54, 54, "more"), (100, 54, "more"), (4, 4, "more")]
)
def test_a_cap_does_not_split_a_second(limit: int | None, sent: int, hint: str) -> None:
    """Up to 50 more of the last second are sent, but never more than the client asked for."""
    store = FilledStore([note(100) for _ in range(80)])
    rows, given_hint = store.scan(Filter(limit=limit), limits=LIMITS._replace(max_limit=4))
    assert (len(rows), given_hint) == (sent, hint)


def test_all_filters_together_have_a_cap() -> None:
    """The cap on all results cuts the merged answer, not that of some filter."""
    notes = [note(100 + n, kind=1 + n % 2) for n in range(10)]
    store = FilledStore(notes)
    rows, hint = store.scan(Filter(kinds=(1,)), Filter(kinds=(2,)), limits=LIMITS._replace(max_results=5))
    assert (rows, hint) == (texts(in_order(notes)[:5]), "more")


def test_the_cap_on_all_results_does_not_split_a_second_either() -> None:
    """It goes on for up to 50 events of that second."""
    store = FilledStore(note(100, kind=n % 3) for n in range(70))
    asked = [Filter(kinds=(kind,)) for kind in range(3)]
    rows, hint = store.scan(*asked, limits=LIMITS._replace(max_results=4))
    assert (rows, hint) == (texts(in_order(store.events.values())[:54]), "more")


@pytest.mark.parametrize(("limit", "private", "hint"), [(2, 30, "finish"), (None, 1000, "finish")])
def test_looking_ahead_takes_as_many_steps_as_it_needs(limit: int | None, private: int, hint: str) -> None:
    """Whether a limit has left out anything is found out in steps, too."""
    store = FilledStore([note(200), note(199), *(note(100, kind=4) for _ in range(private))])
    scan = store.reader.scan([Filter(limit=limit)], EVERYBODY, LIMITS._replace(default_limit=2))
    rows, steps = [], 0
    while not scan.done:
        rows += scan.step(always, 9999)
        steps += 1
    assert (len(rows), scan.hint) == (2, hint)
    assert steps > 1


def test_a_pause_keeps_the_place_of_a_filter_that_has_found_nothing() -> None:
    """What was looked at before a pause is not looked at again, also if none of it has matched."""
    store = FilledStore([note(1, tags=[["x", "yes"]]), *(note(1000 + n, tags=[["x", "no"]]) for n in range(500))])
    asked = [Filter(kinds=(1,), authors=(store.events[1].pubkey,), tags=(("x", ("yes",)),))]
    scan, steady = (store.reader.scan(asked, EVERYBODY, LIMITS) for _ in range(2))
    rows: list[bytes] = []
    steps = count(1)
    while not scan.done:
        rows += scan.step(always, 1)
        if next(steps) % 4 == 0:
            scan.pause()
        assert scan.work < 5000
    assert rows == finish(steady)


def test_what_another_filter_has_sent_is_not_left_out() -> None:
    """A limit that cut only what was sent all the same has left out nothing."""
    store = FilledStore(note(100 + n) for n in range(5))
    assert store.scan(ALL, Filter(limit=2))[1] == "finish"


def test_a_limit_whose_rest_is_costly_to_find_gives_no_hint() -> None:
    """Nobody looks through a thousand events to tell a client about its own limit."""
    private = [note(100 - n % 50, kind=4) for n in range(1000)]
    store = FilledStore([note(200), *private])
    scan = store.reader.scan([Filter(limit=1)], EVERYBODY, LIMITS)
    assert len(finish(scan)) == 1
    assert scan.hint is None
    assert scan.work < 300


def test_what_expires_during_a_scan_is_not_sent() -> None:
    """A scan that goes on later leaves out what has expired by then, also what it had read before."""
    stored = [note(300), note(299, tags=[["expiration", str(WALL_S + 1)]]), note(298)]
    scan = FilledStore(stored).reader.scan([ALL], EVERYBODY, LIMITS)
    first = scan.step(never, 1)
    scan.look_at(WALL_S + 1)
    assert texts([stored[0], stored[2]]) == first + finish(scan)


def test_what_may_not_be_seen_does_not_use_up_a_limit() -> None:
    """Private, expired and hidden events are skipped, not counted."""
    hidden = [note(300, kind=4), note(301, tags=[["expiration", str(WALL_S)]]), note(302, pubkey=C)]
    notes = [note(100), note(99)]
    view = View(frozenset(), frozenset({4}), WALL_S, frozenset({C}))
    assert FilledStore(hidden + notes).scan(Filter(limit=2), view=view) == (texts(notes), "finish")


def test_private_kinds_are_for_their_parties() -> None:
    """Authors and receivers see them under any filter; others do not, not even by id."""
    secret = note(kind=1059, pubkey=A, tags=[["p", B], ["p", C]])
    store = FilledStore([secret])
    asked = (Filter(ids=(secret.id,)), ALL, Filter(kinds=(1059,)), Filter(authors=(A,)), Filter(tags=(("p", (C,)),)))
    for keys, is_seen in ((frozenset[str](), False), (frozenset({A}), True), (frozenset({C}), True)):
        view = View(keys, frozenset({1059}), WALL_S)
        for filter_ in asked:
            assert store.scan(filter_, view=view)[0] == (texts([secret]) if is_seen else [])


def test_values_of_tags_are_compared_whole() -> None:
    """Another value with the same key in the index is no match."""
    twin = A[:32] + B[:32]
    store = FilledStore([note(tags=[["p", twin]]), note(tags=[["p", A]])])
    assert store.scan(Filter(tags=(("p", (A,)),)))[0] == texts([store.events[2]])


def test_many_authors_are_one_merged_scan() -> None:
    """It costs little more than a look at each author and what is sent, however much they have written."""
    authors = [f"{n:064x}" for n in range(50)]
    store = FilledStore(note(1000 * n + m, pubkey=authors[m]) for n in range(100) for m in range(50))
    scan = store.reader.scan([Filter(authors=tuple(authors), kinds=(0, 1), limit=100)], EVERYBODY, LIMITS)
    assert finish(scan) == texts(in_order(store.events.values())[:100])
    assert scan.work < 1000


def test_a_scan_that_finds_nothing_is_counted_and_ends() -> None:
    """Work is counted where nothing is yielded; the limit ends the scan, and says that more may be there."""
    store = FilledStore(note(n, tags=[["t", "x"]]) for n in range(600))
    asked = Filter(authors=(A,), tags=(("t", ("x",)),))
    scan = store.reader.scan([asked], EVERYBODY, LIMITS)
    assert finish(scan) == []
    assert (scan.over_work, scan.hint) == (False, "finish")
    assert scan.work >= 1200
    scan = store.reader.scan([asked], EVERYBODY, LIMITS._replace(max_work=700))
    assert finish(scan) == []
    assert (scan.done, scan.over_work, scan.hint) == (True, True, "more")
    assert 700 < scan.work < 900


def test_work_that_runs_out_leaves_the_newest_part() -> None:
    """What was sent before the work ran out is a correct newest part of the answer."""
    store = FilledStore(note(n) for n in range(1000))
    scan = store.reader.scan([ALL], EVERYBODY, LIMITS._replace(max_work=600))
    rows = finish(scan, max_bytes=2000)
    assert scan.over_work
    assert rows == texts(in_order(store.events.values())[: len(rows)])
    assert 0 < len(rows) < 500


def test_a_step_holds_no_transaction() -> None:
    """Between steps the database is not read, so that its log can be checkpointed."""
    store = FilledStore(note(n) for n in range(10))
    scan = store.reader.scan([ALL], EVERYBODY, LIMITS)
    scan.step(never, 1)
    assert not store.connection.in_transaction
    assert not scan.done
    assert len(finish(scan)) == 9
    assert scan.step(never, 1) == []
