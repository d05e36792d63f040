"""What every store does, whatever the database: one suite for all implementations, and for the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.model_store import ModelStore
from tests.support.nostr_events import ALICE, BOB, CAROL, id_of, make_event
from tests.support.stores import put, put_singly, stored_ids

from pyryrelay.nostr.events import MAX_CREATED_AT, Event
from pyryrelay.nostr.storage.interface import Outcome, Retention, RetentionRule, WritableStore
from pyryrelay.nostr.storage.sqlite.store import open_writer

STORED, DUPLICATE, SUPERSEDED, DELETED, FAILED = Outcome
E1 = "e1" * 32


@pytest.fixture(params=["file", "memory", "model"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WritableStore]:
    """Return an empty store of each kind."""
    opened: WritableStore
    if request.param == "model":
        opened = ModelStore()
    else:
        opened = open_writer("sqlite::memory:" if request.param == "memory" else f"sqlite:{tmp_path}/store.db")
    yield opened
    assert opened.check().problems == []
    opened.tend(is_idle=True)
    assert opened.check().problems == []
    opened.close()


def total(store: WritableStore) -> int:
    """Return how many events are stored."""
    return sum(store.statistics().events.values())


def deletion(*tags: list[str], author: str = ALICE, created_at: int = 2000) -> Event:
    """Return a kind 5."""
    return make_event(author, 5, created_at, tags)


def is_stored(store: WritableStore, event: Event) -> bool:
    """Tell whether an event is there, which changes it into one that is not."""
    return store.delete([id_of(event)], forever=False) == [id_of(event)]


# Duplicates and numbers


def test_an_event_is_stored_once(store: WritableStore) -> None:
    """A second copy is a duplicate, in another batch and in the same one."""
    event, other = make_event(), make_event(content="other")
    written = put(store, event, event)
    assert (written.outcomes, written.seqs) == ([STORED, DUPLICATE], [1, 0])
    written = put(store, other, event)
    assert (written.outcomes, written.seqs) == ([STORED, DUPLICATE], [2, 0])
    assert total(store) == 2


def test_an_empty_batch_changes_nothing(store: WritableStore) -> None:
    """A batch of nothing is written."""
    assert put(store).outcomes == []
    assert store.statistics().last_seq == 0


def test_numbers_are_never_used_twice(store: WritableStore) -> None:
    """After the newest event is gone, the next one gets a number of its own."""
    first, second = make_event(content="1"), make_event(content="2")
    put(store, first)
    store.delete([id_of(first)], forever=False)
    assert put(store, second).seqs == [2]
    assert store.statistics().last_seq == 2


def test_ephemeral_events_are_not_for_stores(store: WritableStore) -> None:
    """An ephemeral event fails alone."""
    assert put(store, make_event(kind=20_000), make_event()).outcomes == [FAILED, STORED]
    assert total(store) == 1


@pytest.mark.parametrize(
    "event",
    [
        make_event(created_at=MAX_CREATED_AT, kind=65_535),
        make_event(created_at=0),
        make_event(content="\0 \u2028 \U0010ffff", tags=[["t", "a\0b"], ["t", "a"], ["t", ""]]),
        make_event(tags=[[], ["t"], ["e", "not hex"], ["E", E1], ["e", E1], ["e", E1], ["tt", "x"], ["p", E1.upper()]]),
        make_event(tags=[["t", "x" * 100_000]]),
        make_event(tags=[["expiration", "never"]]),
    ],
)
def test_unusual_events_are_stored(store: WritableStore, event: Event) -> None:
    """The largest numbers, NULs, repeated, short and long tags are stored, and found by their indexes."""
    assert put_singly(store, [event, event]) == [STORED, DUPLICATE]


def test_tending_changes_nothing_that_is_seen(store: WritableStore) -> None:
    """Events are the same before and after, and numbers go on."""
    versions = [make_event(kind=0, created_at=time) for time in (2, 1, 3)]
    note = make_event()
    put(store, note, versions[0])
    store.tend()
    store.tend(is_idle=True)
    store.tend(is_idle=True)
    written = put(store, note, *versions)
    assert (written.outcomes, written.seqs) == ([DUPLICATE, DUPLICATE, SUPERSEDED, STORED], [0, 0, 0, 3])
    assert written.removed == [id_of(versions[0])]
    store.tend(is_idle=True)
    assert put(store, deletion(["e", note.id])).removed == [id_of(note)]
    assert store.statistics().events == {"regular": 1, "replaceable": 1, "addressable": 0}


def test_events_are_counted_by_class(store: WritableStore) -> None:
    """Statistics know how many events of each class are stored."""
    put(store, *(make_event(kind=kind) for kind in (1, 2, 1059, 0, 10_002, 30_023)))
    assert store.statistics().events == {"regular": 3, "replaceable": 2, "addressable": 1}


# Replacement


@pytest.mark.parametrize("kind", [0, 3, 10_000, 19_999, 30_000, 39_999])
def test_the_newer_version_wins(store: WritableStore, kind: int) -> None:
    """A version replaces an older one; an older one that comes later is refused."""
    old, new = make_event(kind=kind, created_at=1), make_event(kind=kind, created_at=2)
    assert put(store, old).removed == []
    assert put(store, new).removed == [id_of(old)]
    assert put(store, old).outcomes == [SUPERSEDED]
    assert total(store) == 1


@pytest.mark.parametrize("kind", [0, 30_000])
def test_the_smaller_id_wins_a_tie(store: WritableStore, kind: int) -> None:
    """Of two versions of one second the smaller id stays, whichever comes first."""
    low, high = sorted((make_event(kind=kind, content=text) for text in "ab"), key=lambda event: event.id)
    assert put_singly(store, [high, low, high]) == [STORED, STORED, SUPERSEDED]
    assert is_stored(store, low)


def test_a_batch_of_versions_keeps_the_winner(store: WritableStore) -> None:
    """A loser that comes first is stored and replaced, so it has no number; one that comes later is refused."""
    old, new, older = (make_event(kind=0, created_at=time) for time in (2, 3, 1))
    written = put(store, old, new, older, old)
    assert written.outcomes == [STORED, STORED, SUPERSEDED, SUPERSEDED]
    assert written.seqs == [0, 1, 0, 0]
    assert written.removed == []
    assert total(store) == 1


def test_regular_kinds_replace_nothing(store: WritableStore) -> None:
    """Kinds 1, 41 and those above 40000 are all kept."""
    assert put(
        store, *(make_event(kind=kind, created_at=time) for kind in (1, 41, 40_000) for time in (1, 2))
    ).seqs == [*range(1, 7)]


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ([], [["d"]], True),
        ([], [["d", ""]], True),
        ([["d", "x"], ["d", "y"]], [["d", "x"]], True),
        ([["d"], ["d", "y"]], [["d", ""]], True),
        ([["d", "x", "more"]], [["d", "x"]], True),
        ([["d", "x"]], [["d", "X"]], False),
        ([["d", "x\0"]], [["d", "x"]], False),
        ([["d", "x\0y"]], [["d", "x\0z"]], False),
        ([["d", "l" * 50_000 + "1"]], [["d", "l" * 50_000 + "2"]], False),
        ([["d", E1]], [["d", E1[:-1] + "f"]], False),
        ([["D", "x"]], [["d", "x"]], False),
    ],
)
def test_addresses_are_compared_whole(
    store: WritableStore, first: list[list[str]], second: list[list[str]], is_same: bool
) -> None:
    """The address is element 1 of the first `d` tag, by all its bytes; without one it is empty."""
    put(store, make_event(kind=30_000, created_at=1, tags=first))
    put(store, make_event(kind=30_000, created_at=2, tags=second))
    assert total(store) == 2 - is_same


def test_addresses_belong_to_authors_and_kinds(store: WritableStore) -> None:
    """Another author or kind is another address; `d` means nothing to replaceable kinds."""
    put(store, make_event(kind=30_000), make_event(BOB, 30_000), make_event(kind=30_001))
    assert total(store) == 3
    put(store, make_event(kind=0, tags=[["d", "x"]], created_at=1), make_event(kind=0, tags=[["d", "y"]], created_at=2))
    assert total(store) == 4


def test_an_expired_winner_is_gone(store: WritableStore) -> None:
    """An older version may be published again once the newer one has expired."""
    old = make_event(kind=30_000, created_at=1)
    new = make_event(kind=30_000, created_at=2, tags=[["expiration", "100"]])
    put(store, new)
    assert put(store, old, received_s=99).outcomes == [SUPERSEDED]
    written = put(store, old, received_s=100)
    assert (written.outcomes, written.removed) == ([STORED], [id_of(new)])
    assert total(store) == 1


# Deletion


def test_an_author_deletes_by_id(store: WritableStore) -> None:
    """The events that a kind 5 names go and are refused; the kind 5 stays."""
    event, other = make_event(content="1"), make_event(content="2")
    put(store, event, other)
    removing = deletion(["e", event.id], ["e", E1], ["e", "malformed"], ["e"])
    assert put(store, removing).removed == [id_of(event)]
    assert put_singly(store, [event, other, removing]) == [DELETED, DUPLICATE, DUPLICATE]


def test_a_deletion_may_come_first(store: WritableStore) -> None:
    """What comes after its deletion is refused, also within one batch."""
    early, late = make_event(content="1"), make_event(content="2")
    assert put(store, deletion(["e", early.id], ["e", late.id]), early).outcomes == [STORED, DELETED]
    assert put(store, late).outcomes == [DELETED]


def test_a_deletion_of_the_same_batch_removes(store: WritableStore) -> None:
    """An event that a later one of its batch deletes is answered as stored, and has no number."""
    event = make_event()
    written = put(store, event, deletion(["e", event.id]), event)
    assert (written.outcomes, written.seqs, written.removed) == ([STORED, STORED, DELETED], [0, 1, 0], [])


def test_nobody_deletes_for_others(store: WritableStore) -> None:
    """A kind 5 of somebody else deletes nothing, before and after, and the right one still does."""
    event = make_event()
    foreign = deletion(["e", event.id], ["a", f"30000:{ALICE}:"], author=BOB)
    replaceable = make_event(kind=30_000)
    assert put(store, foreign, event, replaceable).outcomes == [STORED] * 3
    assert put(store, deletion(["e", event.id], author=CAROL)).removed == []
    assert put(store, deletion(["e", event.id])).removed == [id_of(event)]


@pytest.mark.parametrize("kind", [5, 62])
def test_some_kinds_are_never_deleted(store: WritableStore, kind: int) -> None:
    """A kind 5 and a kind 62 do not go, whether the deletion comes before or after."""
    first, second = make_event(kind=kind, content="1"), make_event(kind=kind, content="2")
    assert put_singly(store, [first, deletion(["e", first.id], ["e", second.id]), second, first]) == [
        STORED,
        STORED,
        STORED,
        DUPLICATE,
    ]


def test_recipients_delete_gift_wraps(store: WritableStore) -> None:
    """A gift wrap goes, or is refused, if one of its `p` tags is the author of the kind 5; a kind 4 does not."""
    tags = [["p", BOB], ["p", CAROL], ["p", "malformed"]]
    wrap, late, message = (
        make_event(kind=1059, tags=tags),
        make_event(kind=1059, tags=tags, content="2"),
        make_event(kind=4, tags=tags),
    )
    put(store, wrap, message)
    removing = deletion(*(["e", event.id] for event in (wrap, late, message)), author=CAROL)
    assert put(store, removing).removed == [id_of(wrap)]
    assert put(store, wrap, late, message).outcomes == [DELETED, DELETED, DUPLICATE]
    unrelated = make_event(kind=1059, tags=[["p", BOB]])
    assert put(store, deletion(["e", unrelated.id], author=CAROL), unrelated).outcomes == [STORED, STORED]


def test_an_author_deletes_addresses(store: WritableStore) -> None:
    """Versions up to the time of the kind 5 go and are refused; newer ones are welcome."""
    old, same, new = (make_event(kind=30_000, created_at=time, tags=[["d", "a:b"]]) for time in (1, 2, 3))
    other = make_event(kind=30_000, created_at=1, tags=[["d", "a"]])
    put(store, old, other)
    assert put(store, deletion(["a", f"30000:{ALICE}:a:b"], created_at=2)).removed == [id_of(old)]
    assert put(store, old, same, new).outcomes == [DELETED, DELETED, STORED]
    assert put(store, deletion(["a", f"30000:{ALICE}:a:b"], created_at=1)).removed == []
    assert put(store, same).outcomes == [DELETED]


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        (f"0:{ALICE}:", True),
        (f"0:{ALICE}", False),
        (f"0:{ALICE}:d", False),
        (f"0:{BOB}:", False),
        (f"1:{ALICE}:", False),
        (f"-0:{ALICE}:", False),
        (f"99999:{ALICE}:", False),
        (f"\u0660:{ALICE}:", False),
        ("", False),
        ("::", False),
    ],
)
def test_malformed_addresses_delete_nothing(store: WritableStore, target: str, goes: bool) -> None:
    """Only `kind:pubkey:d` of the author and of a kind with addresses counts; replaceables have an empty d."""
    put(store, make_event(kind=0), make_event(kind=1))
    assert len(put(store, deletion(["a", target])).removed) == goes


def test_a_deleted_winner_brings_no_loser_back(store: WritableStore) -> None:
    """After a deletion by id, an older version may be published again, but does not return by itself."""
    old, new = make_event(kind=0, created_at=1), make_event(kind=0, created_at=2)
    put(store, old, new)
    put(store, deletion(["e", new.id]))
    assert store.statistics().events["replaceable"] == 0
    assert put(store, old, new).outcomes == [STORED, DELETED]


def test_many_targets_in_one_deletion(store: WritableStore) -> None:
    """A kind 5 may name thousands of events."""
    events = [make_event(content=str(number)) for number in range(2000)]
    put(store, *events)
    removing = deletion(*(["e", event.id] for event in events))
    assert sorted(put(store, removing).removed) == sorted(map(id_of, events))
    assert total(store) == 1


# Positions


def test_positions_are_kept(store: WritableStore) -> None:
    """The last position of each name counts, and other names keep theirs."""
    assert store.positions() == {}
    store.keep_positions({"a": "1-0", "b": "2"})
    store.keep_positions({"a": "3-1"})
    store.keep_positions({})
    assert store.positions() == {"a": "3-1", "b": "2"}
    assert total(store) == 0


# Order of arrival

_authors = st.sampled_from([ALICE, BOB])
_times = st.integers(1, 4)
_versions = st.builds(
    make_event,
    _authors,
    st.sampled_from([0, 30_000, 30_001]),
    _times,
    st.sampled_from([[], [["d", "x"]], [["d", "x\0"], ["d", "x"]]]),
    st.sampled_from("ab"),
)
_notes = st.builds(make_event, _authors, st.sampled_from([1, 1059]), _times, st.sampled_from([[], [["p", BOB]]]))


@st.composite
def histories(draw: st.DrawFn, *, converging: bool = False) -> list[Event]:
    """Draw events, and deletions of some of them, in any order; converging ones delete versions by address only."""
    events = draw(st.lists(_versions | _notes, max_size=8))
    deletions = []
    for author in draw(st.lists(_authors, max_size=3)):
        named = draw(st.lists(st.sampled_from(events), max_size=4)) if events else []
        tags = [["e", event.id] for event in named if not converging or event.kind in (1, 1059)]
        tags += [["a", f"{event.kind}:{author}:{'x' if event.tags and event.kind else ''}"] for event in named]
        deletions.append(make_event(author, 5, draw(_times), tags))
    everything = [*events, *deletions]
    return (
        draw(st.permutations([*everything, *draw(st.lists(st.sampled_from(everything), max_size=3))]))
        if everything
        else []
    )


@given(histories(), st.lists(st.integers(1, 5), min_size=20, max_size=20))
@settings(max_examples=60)
def test_batches_are_like_single_events(history: list[Event], sizes: list[int]) -> None:
    """However a history is cut into batches, and tended, the answers and the result are the model's, one by one."""
    model = ModelStore()
    expected = put_singly(model, history)
    store = open_writer("sqlite::memory:")
    try:
        outcomes: list[Outcome] = []
        rest = history
        for size in sizes:
            batch, rest = rest[:size], rest[size:]
            outcomes += put(store, *batch).outcomes
            if size == 3:
                store.tend(is_idle=True)
        assert outcomes == expected
        assert stored_ids(store) == set(model.events)
        assert store.statistics().events == model.statistics().events
        assert store.check().problems == []
    finally:
        store.close()


@given(st.data())
@settings(max_examples=40)
def test_every_order_of_arrival_ends_in_one_state(data: st.DataObject) -> None:
    """Versions, notes, duplicates and deletions may come in any order."""
    history = data.draw(histories(converging=True))
    stores = [open_writer("sqlite::memory:") for _ in range(2)]
    try:
        put(stores[0], *history)
        for event in data.draw(st.permutations(history)):
            put(stores[1], event)
            stores[1].tend(is_idle=event.created_at % 2 == 0)
        assert stored_ids(stores[0]) == stored_ids(stores[1])
    finally:
        for store in stores:
            store.close()


# Housekeeping


def test_expired_events_are_swept(store: WritableStore) -> None:
    """What expires at that second or before goes, by the earliest time, and is not remembered."""
    gone = make_event(tags=[["expiration", "200"], ["expiration", "100"]])
    kept = make_event(tags=[["expiration", "101"]])
    put(store, gone, kept, make_event())
    assert store.sweep(99, 1.0) == ([], False)
    assert store.sweep(100, 1.0) == ([id_of(gone)], False)
    assert put(store, gone).outcomes == [STORED]


def test_events_are_deleted_by_id(store: WritableStore) -> None:
    """Deleted events may come back, unless they were deleted forever; then their author does not matter."""
    once, forever, unseen = (make_event(content=text) for text in ("once", "forever", "unseen"))
    put(store, once, forever)
    assert store.delete([id_of(once), id_of(once), b"x" * 32], forever=False) == [id_of(once)]
    assert store.delete([id_of(forever), id_of(unseen)], forever=True) == [id_of(forever)]
    assert put(store, once, forever, unseen).outcomes == [STORED, DELETED, DELETED]


def test_deleting_frees_the_address(store: WritableStore) -> None:
    """After a version was deleted by its id, an older one is welcome."""
    old, new = make_event(kind=0, created_at=1), make_event(kind=0, created_at=2)
    put(store, new)
    store.delete([id_of(new)], forever=False)
    assert put(store, old).outcomes == [STORED]


def test_old_events_are_not_retained(store: WritableStore) -> None:
    """A rule removes events of its kinds beyond an age; the first rule that has a kind decides; keys are spared."""
    ages = {age: make_event(kind=1, created_at=1000 - age) for age in (9, 10, 11)}
    spared = make_event(BOB, 1, 1)
    others = [make_event(kind=kind, created_at=1) for kind in (0, 3, 5, 62, 6, 10_002)]
    put(store, *ages.values(), spared, *others)
    rules = [RetentionRule(frozenset({1, 5, 62}), 10, None), RetentionRule(frozenset({1, 6}), 5000, None)]
    retention = Retention(rules, spared=frozenset({bytes.fromhex(BOB)}))
    assert store.retain(retention, 1000, 1.0) == ([id_of(ages[11])], False)
    named = Retention([RetentionRule(frozenset(range(65_536)), 10, None)])
    store.retain(named, 1000, 1.0)
    assert store.statistics().events == {"regular": 4, "replaceable": 0, "addressable": 0}


def test_the_newest_of_each_author_are_retained(store: WritableStore) -> None:
    """A number in a rule is for all its kinds together."""
    events = [make_event(author, kind, time) for author in (ALICE, BOB) for kind in (1, 7) for time in (1, 2)]
    put(store, *events, make_event(kind=6))
    removed, more = store.retain(Retention([RetentionRule(frozenset({1, 7}), None, 2)]), 0, 1.0)
    assert sorted(removed) == sorted(id_of(event) for event in events if event.created_at == 1)
    assert not more


def test_the_oldest_events_give_way(store: WritableStore) -> None:
    """Over the number of events, regular ones go first, then addressable ones; profiles and deletions stay."""
    protected = [make_event(kind=kind, created_at=0) for kind in (0, 3, 5, 62, 10_002)]
    notes = [make_event(created_at=time) for time in range(5, 10)]
    article = make_event(kind=30_023, created_at=1)
    put(store, *protected, *notes, article)
    assert store.retain(Retention(max_events=9), 0, 1.0) == ([id_of(note) for note in notes[:2]], False)
    removed, _ = store.retain(Retention(max_events=1), 0, 1.0)
    assert removed == [*map(id_of, notes[2:]), id_of(article)]
    assert total(store) == 5
