"""What readers find among recent events, while they come, go, and are indexed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.nostr_events import ALICE, BOB, CAROL, id_of, make_event
from tests.support.stored_events import EVERYBODY, LIMITS, finish, in_order, never, texts
from tests.support.stores import put

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter, Matcher
from pyryrelay.nostr.storage.sqlite.queries.entries import UNKNOWN_KIND, Entry
from pyryrelay.nostr.storage.sqlite.reader import SqliteReader, open_reader
from pyryrelay.nostr.storage.sqlite.recent.lookups import RecentEntries, RecentKnown
from pyryrelay.nostr.storage.sqlite.schema import tag_key
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer

EVENTS = [
    make_event(author, kind, time, [["t", topic], ["e", "e" * 64]])
    for author in (ALICE, BOB)
    for kind in (1, 7)
    for time in (10, 11)
    for topic in ("x", "y")
]
FILTERS = [
    Filter(),
    Filter(limit=3),
    Filter(ids=tuple(event.id for event in EVENTS[::3])),
    Filter(authors=(ALICE,)),
    Filter(authors=(ALICE, BOB, CAROL), kinds=(1, 7), limit=5),
    Filter(kinds=(7,), since=11),
    Filter(kinds=(1, 6), until=10),
    Filter(tags=(("t", ("x",)),)),
    Filter(tags=(("e", ("e" * 64,)),), kinds=(1,), limit=4),
    Filter(authors=(BOB,), tags=(("t", ("x", "y")),)),
]


def expected(stored: list[Event], filter_: Filter) -> list[bytes]:
    """Return the answer to a filter, worked out in the most obvious way."""
    matches = Matcher.of(filter_)
    return texts(in_order(event for event in stored if matches(event))[: filter_.limit])


def check_reader(reader: SqliteReader, stored: list[Event]) -> None:
    """Ask a reader everything."""
    for filter_ in FILTERS:
        wanted = expected(stored, filter_)
        assert finish(reader.scan([filter_], EVERYBODY, LIMITS)) == wanted
        if filter_.limit is None:
            counting = reader.count([filter_], EVERYBODY, 1000, hll=False)
            while not counting.done:
                counting.step(never)
            assert counting.count == len(wanted)
    assert reader.known([id_of(event) for event in EVENTS]) == {id_of(event) for event in stored}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "delete", "tend", "look"]), st.sets(st.sampled_from(range(16)), max_size=6)
        ),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_a_reader_sees_every_state(actions: list[tuple[str, set[int]]]) -> None:
    """A reader that stays open answers as a new one does, whatever has happened since its last look."""
    stored: dict[str, Event] = {}
    with contextlib.closing(open_writer("sqlite::memory:")) as writer:
        url = f"sqlite:{writer.path}"
        with contextlib.closing(open_reader(url)) as reader:
            for action, numbers in actions:
                chosen = [EVENTS[number] for number in sorted(numbers)]
                match action:
                    case "put":
                        put(writer, *chosen)
                        stored |= {event.id: event for event in chosen}
                    case "delete":
                        writer.delete([id_of(event) for event in chosen], forever=False)
                        for event in chosen:
                            stored.pop(event.id, None)
                    case "tend":
                        writer.tend(is_idle=True)
                    case _:
                        check_reader(reader, list(stored.values()))
            check_reader(reader, list(stored.values()))
            with contextlib.closing(open_reader(url)) as fresh:
                check_reader(fresh, list(stored.values()))
        assert writer.check().problems == []


def test_a_scan_goes_on_while_its_events_are_indexed(tmp_path: Path) -> None:
    """Between two steps, recent events may be indexed and others come; the scan has each once, in order."""
    with contextlib.closing(open_writer(f"sqlite:{tmp_path}/store.db")) as writer:
        put(writer, *EVENTS[:8])
        writer.tend(is_idle=True)
        put(writer, *EVENTS[8:])
        with contextlib.closing(open_reader(f"sqlite:{tmp_path}/store.db")) as reader:
            for filter_ in FILTERS:
                scan = reader.scan([filter_], EVERYBODY, LIMITS)
                found = []
                extra = 0
                while not scan.done:
                    found += scan.step(never, 1)
                    scan.pause()
                    extra += 1
                    put(writer, make_event(ALICE, 1, 12, content=f"{filter_} {extra}"))
                    if extra == 3:
                        writer.tend(is_idle=True)
                assert found == expected(EVENTS, filter_)
                for number in range(extra):
                    event = make_event(ALICE, 1, 12, content=f"{filter_} {number + 1}")
                    writer.delete([id_of(event)], forever=False)


@pytest.fixture
def writer() -> SqliteWriter:
    """Return a store with recent events."""
    opened = open_writer("sqlite::memory:")
    put(opened, *EVENTS)
    return opened


def entry(event: Event, *, kind: int | None = None) -> Entry:
    """Return the entry of an event of `EVENTS`."""
    seq = 1 + EVENTS.index(event)
    return -event.created_at, id_of(event)[:16], seq, event.kind if kind is None else kind


def test_ranges_of_recent_events(writer: SqliteWriter) -> None:
    """Each range has the entries that its index would have, cut by time, place and number."""
    recent = RecentEntries(writer._database)
    recent.update()
    everything = sorted(entry(event, kind=UNKNOWN_KIND) for event in EVENTS)
    assert recent.first((), 99, 0, 99) == everything
    assert recent.first((), 10, 0, 3) == [each for each in everything if each[0] == -10][:3]
    assert recent.first((), 99, 11, 99) == [each for each in everything if each[0] == -11]
    assert recent.first((), 9, 0, 99) == recent.first((8,), 99, 0, 99) == []
    place = -everything[4][0], everything[4][1]
    assert recent.after((), place, 0, 2) == everything[5:7]
    topic = sorted(entry(event) for event in EVENTS if event.tags[0][1] == "x")
    assert recent.first((tag_key("t", "x"),), 99, 0, 99) == topic
    assert recent.by_id(id_of(EVENTS[3])) == [entry(EVENTS[3])]
    assert recent.by_id(b"\1" * 32) == []
    writer.close()


def test_kinds_of_recent_events(writer: SqliteWriter) -> None:
    """The next kind is that of an author, or of all; a kind is gone with its last event."""
    recent = RecentEntries(writer._database)
    recent.update()
    alice = bytes.fromhex(ALICE)
    assert [recent.next_kind(kind) for kind in (-1, 1, 7)] == [1, 7, None]
    assert [sorted(recent.kinds_of(alice, kind)) for kind in (-1, 1, 7)] == [[1, 7], [7], []]
    writer.delete([id_of(event) for event in EVENTS if event.kind == 1 and event.pubkey == ALICE], forever=False)
    recent.update()
    assert recent.kinds_of(alice, -1) == [7]
    assert recent.next_kind(-1) == 1
    assert recent.kinds_of(bytes.fromhex(CAROL), -1) == []
    assert recent.among([(alice, 1), (alice, 7), (8,), ()]) == [1, 3]
    writer.close()


def test_known_recent_events(writer: SqliteWriter) -> None:
    """Ids are known until the event is removed, or indexed."""
    recent = RecentKnown(writer._database)
    ids = [id_of(event) for event in EVENTS[:3]]
    assert recent.of([*ids, b"other"]) == set(ids)
    writer.delete(ids[:1], forever=False)
    assert recent.of(ids) == set(ids[1:])
    writer.tend(is_idle=True)
    assert recent.of(ids) == set()
    writer.close()
