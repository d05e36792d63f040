"""The events of one filter."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.support.nostr_filters import A, B, make_event
from tests.support.stored_events import EVERYBODY, WALL_S, FilledStore, always, never, texts

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.sqlite.queries import matching
from pyryrelay.nostr.storage.sqlite.queries.entries import Tables
from pyryrelay.nostr.storage.sqlite.queries.matching import Matches, Viewer
from pyryrelay.nostr.storage.sqlite.queries.merging import Meter
from pyryrelay.nostr.storage.sqlite.queries.planning import plan
from pyryrelay.nostr.storage.visibility import View

PLENTY = 1 << 20


def matches_of(store: FilledStore, filter_: Filter, expired: frozenset[int] | None = None) -> Matches:
    """Return the matches of a filter for everybody, of which none is ready yet."""
    tables, viewer = Tables(store.connection, Path("memory")), Viewer(EVERYBODY, store.last_seq)
    return Matches(tables, filter_, plan(filter_), viewer, Meter(None), expired)


def many(count: int) -> FilledStore:
    """Return a store with events one second apart."""
    return FilledStore(make_event(id=hashlib.sha256(bytes([n])).hexdigest(), created_at=n) for n in range(count))


def test_events_are_loaded_as_far_as_there_is_room() -> None:
    """What is loaded is a little more than the room, however much is wanted."""
    store = many(50)
    matches = matches_of(store, Filter())
    matches.advance(50, 1000, never)
    newest_first = texts(reversed(store.events.values()))
    assert [json for _, json in matches.ready] == newest_first[: len(matches.ready)]
    assert 1 <= len(matches.ready) < 10
    matches.unload()
    assert not matches.ready
    matches.advance(50, PLENTY, never)
    assert [json for _, json in matches.ready] == newest_first


def test_entries_are_read_as_far_as_their_events_fit() -> None:
    """A scan that pauses after a few events has not read many entries in vain; what does not match needs more."""
    store = many(200)
    for filter_, most in ((Filter(), 16), (Filter(kinds=(1,)), 16), (Filter(kinds=(1,), tags=(("e", (A,)),)), 128)):
        matches = matches_of(store, filter_)
        matches.advance(200, 1000, never)
        assert len(matches._candidates) + len(matches.ready) <= most
        assert matches.is_exhausted == (filter_.tags != ())


def test_a_step_without_time_still_gets_on() -> None:
    """Each call reads or loads something, so that a slow machine comes to an end."""
    matches = matches_of(many(20), Filter(kinds=(1, 7, 0)))
    calls = 0
    while not matches.ready:
        matches.advance(20, PLENTY, always)
        calls += 1
    assert 1 < calls < 10


def test_it_ends() -> None:
    """A filter that matches nothing is exhausted, at once if nothing can match."""
    assert matches_of(many(3), Filter(kinds=())).is_exhausted
    matches = matches_of(many(3), Filter(kinds=(7,)))
    matches.advance(5, PLENTY, never)
    assert matches.is_exhausted
    assert not matches.ready


def test_large_events_that_do_not_match_are_loaded_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step looks at the clock after so many bytes, also if it finds nothing."""
    monkeypatch.setattr(matching, "MOST_LOADED_BYTES", 1000)
    store = FilledStore(make_event(id=hashlib.sha256(bytes([n])).hexdigest(), tags=[["t", "x"]]) for n in range(50))
    matches = matches_of(store, Filter(tags=(("t", ("x",)),), authors=(A,)))
    calls = 0
    while not matches.is_exhausted:
        matches.advance(50, PLENTY, always)
        calls += 1
    assert calls > 10


def test_it_begins_again_behind_a_place_after_it_forgot_everything() -> None:
    """A place is enough to go on from."""
    store = many(5)
    matches = matches_of(store, Filter())
    matches.advance(5, PLENTY, never)
    matches.release()
    matches.advance(5, PLENTY, never, (3, bytes.fromhex(store.events[4].id)))
    assert [json for _, json in matches.ready] == texts([store.events[n] for n in (3, 2, 1)])


def test_the_index_alone_gives_matches_without_events() -> None:
    """If the expired events are known, nothing has to be loaded."""
    store = many(3)
    matches = matches_of(store, Filter(kinds=(1,)), frozenset({2}))
    matches.advance(5, PLENTY, never)
    assert [(entry[2], json) for entry, json in matches.ready] == [(3, b""), (1, b"")]


def test_a_viewer_decides_by_columns_where_they_tell() -> None:
    """Events are parsed for private kinds only, which are for their parties."""
    viewer = Viewer(View(frozenset({A}), frozenset({4}), WALL_S, frozenset({B})), 10)
    a, b = bytes.fromhex(A), bytes.fromhex(B)
    (text,) = texts([make_event(pubkey=A, kind=4)])
    assert viewer.shows((1, a, 1, None, b"not parsed"))
    assert viewer.shows((1, a, 1, WALL_S + 1, b"not parsed"))
    assert not viewer.shows((1, a, 1, WALL_S, b"not parsed"))
    assert not viewer.shows((1, b, 1, None, b"not parsed"))
    assert viewer.shows((1, a, 4, None, text))
    assert not Viewer(EVERYBODY, 10).shows((1, a, 4, None, b"not parsed"))
