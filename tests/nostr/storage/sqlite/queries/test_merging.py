"""Entries of many ranges, merged."""

from __future__ import annotations

import hashlib
from itertools import count, islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_filters import A, B, C, filters, make_event, matches_slowly
from tests.support.stored_events import FilledStore, stored_lists

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.sqlite.queries.entries import Entry, Tables
from pyryrelay.nostr.storage.sqlite.queries.merging import Meter, merge
from pyryrelay.nostr.storage.sqlite.queries.planning import plan


def merged(
    store: FilledStore, filter_: Filter, wanted: int, after: tuple[int, bytes] | None = None
) -> tuple[list[Entry], Meter]:
    """Return all entries of the plan of a filter, and the meter."""
    found, meter = plan(filter_), Meter(None)
    if found is None:
        return [], meter
    entries = merge(Tables(store.connection, Path("memory")), found, wanted, after, meter)
    return [entry for entry in entries if entry is not None], meter


@given(stored_lists(), filters(), st.integers(1, 20), st.data())
def test_all_candidates_are_there_once_and_in_order(
    stored: list[Event], filter_: Filter, wanted: int, data: st.DataObject
) -> None:
    """What matches is among the entries; they are sorted, and can be asked for from any place on."""
    store = FilledStore(stored)
    entries, _ = merged(store, filter_, wanted)
    assert entries == sorted(set(entries))
    matched = {seq for seq, event in store.events.items() if matches_slowly(filter_, event)}
    assert matched <= {entry[2] for entry in entries}
    if entries:
        place = data.draw(st.integers(0, len(entries) - 1))
        newest, event_id, _, _ = entries[place]
        assert merged(store, filter_, wanted, (-newest, event_id))[0] == entries[place + 1 :]


def test_an_event_in_two_ranges_is_one_entry() -> None:
    """It has two tags that are asked for."""
    store = FilledStore([make_event(tags=[["t", "x"], ["t", "y"]]), make_event(id=B, tags=[["t", "y"]])])
    assert [entry[2] for entry in merged(store, Filter(tags=(("t", ("x", "y")),)), 10)[0]] == [1, 2]


def test_many_ranges_cost_few_statements() -> None:
    """Ranges are read together, at first and where more than one has to be read on."""
    authors = [f"{n:064x}" for n in range(100)]
    ids = (hashlib.sha256(b"%d" % n).hexdigest() for n in count())
    store = FilledStore(
        make_event(id=next(ids), pubkey=author, created_at=number) for number in range(8) for author in authors
    )
    found = plan(Filter(authors=tuple(authors), kinds=(0, 1, 3, 10002)))
    assert found is not None
    statements: list[str] = []
    store.connection.set_trace_callback(statements.append)
    entries = merge(Tables(store.connection, Path("memory")), found, 500, None, Meter(None))
    taken = list(islice((entry for entry in entries if entry is not None), 500))
    assert [-entry[0] for entry in taken] == [7 - number // 100 for number in range(500)]
    assert sum("by_author" in statement for statement in statements) < 40


def test_ranges_that_are_not_needed_are_not_read_on() -> None:
    """One author wrote all the newest events, and the others more than what was read of them at first."""
    authors = [f"{n:064x}" for n in range(20)]
    ids = (hashlib.sha256(b"%d" % n).hexdigest() for n in count())
    stored = [make_event(id=next(ids), pubkey=author, created_at=n) for n in range(20) for author in authors]
    stored += [make_event(id=next(ids), pubkey=authors[7], created_at=100 + n) for n in range(100)]
    found, meter = plan(Filter(authors=tuple(authors), kinds=(1,))), Meter(None)
    assert found is not None
    entries = merge(Tables(FilledStore(stored).connection, Path("memory")), found, 20, None, meter)
    taken = list(islice((entry for entry in entries if entry is not None), 20))
    assert [-entry[0] for entry in taken] == [199 - number for number in range(20)]
    assert meter.work < 20 * 3 + 100


def test_looks_in_vain_are_work() -> None:
    """An author who has written nothing costs a look at the index, and an id that is not stored too."""
    assert merged(FilledStore(), Filter(authors=(A, B, C), kinds=(1, 2)), 10)[1].work == 6
    assert merged(FilledStore(), Filter(ids=(A, B, C)), 10)[1].work == 3
    assert merged(FilledStore(), Filter(authors=(A, B)), 10)[1].work == 2


@pytest.mark.parametrize(("limit", "work", "is_exceeded"), [(None, 10**9, False), (5, 5, False), (5, 6, True)])
def test_a_meter_has_a_limit(limit: int | None, work: int, is_exceeded: bool) -> None:
    """The limit itself may be used."""
    meter = Meter(limit)
    meter.work += work
    assert meter.is_exceeded() is is_exceeded
