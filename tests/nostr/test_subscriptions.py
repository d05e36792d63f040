"""The index of open subscriptions, compared with matching every subscription with every event."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from tests.support.nostr_filters import A, B, C, events, filters, make_event, matches_slowly

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.subscriptions import MOST_RESTS, TIDIED_VALUES, LiveIndex

SUBSCRIPTIONS = st.lists(filters(), max_size=3)
E = ("e", (A, B))
P = ("p", (C,))


def test_an_empty_index() -> None:
    """Without subscriptions nothing matches."""
    index: LiveIndex[str] = LiveIndex()
    assert (len(index), index.match(make_event()), "a" in index) == (0, [], False)


@pytest.mark.parametrize(
    "filter_",
    [
        Filter(ids=(A,), authors=(B,), kinds=(1,), tags=(E,), since=100, until=100),
        Filter(authors=(A, B), kinds=(1,), tags=(E, P)),
        Filter(tags=(E, P), kinds=(1,)),
        Filter(tags=(P, E)),
        Filter(kinds=(0, 1), since=100),
        Filter(until=100),
        Filter(),
    ],
)
def test_every_field_can_be_entered_under(filter_: Filter) -> None:
    """Whatever field a filter is entered under, it is found by events that match, and the others are compared too."""
    index = LiveIndex[str]()
    index.add("a", [filter_])
    tags = [["e", B], ["x"], ["p", A], ["p", C], ["e", A]]
    matching = make_event(id=A, pubkey=B, kind=1, tags=tags)
    others = [
        make_event(id=B, pubkey=B, kind=1, tags=tags),
        make_event(id=A, pubkey=C, kind=1, tags=tags),
        make_event(id=A, pubkey=B, kind=2, tags=tags),
        make_event(id=A, pubkey=B, kind=1, tags=[["e", A], ["p", A]]),
        make_event(id=A, pubkey=B, kind=1, tags=[["e", C], ["p", C]]),
        make_event(id=A, pubkey=B, kind=1, tags=tags, created_at=99),
        make_event(id=A, pubkey=B, kind=1, tags=tags, created_at=101),
    ]
    assert index.match(matching) == ["a"]
    assert [bool(index.match(other)) for other in others] == [matches_slowly(filter_, other) for other in others]


def test_matchers_are_shared_and_forgotten() -> None:
    """Filters that differ in their authors share the matcher of the rest, and there is a bound to those remembered."""
    index = LiveIndex[str]()
    for number in range(4):
        index.add(f"same {number}", [Filter(authors=(f"{number:064x}",), kinds=(1, 6, 7))])
    assert len({id(entry.rest) for entry in index._entries.values()}) == 1
    for number in range(3 * MOST_RESTS):
        index.add("other", [Filter(authors=(A,), since=number)])
        assert len(index._rests) <= MOST_RESTS
    assert index.match(make_event(pubkey=A, created_at=4 * MOST_RESTS)) == ["other"]


def test_each_subscription_once() -> None:
    """A subscription is found once, though several of its filters and several of their values match."""
    index = LiveIndex[str]()
    index.add("a", [Filter(tags=(E,)), Filter(tags=(E,)), Filter(kinds=(1,)), Filter(tags=(E,), kinds=(1,)), Filter()])
    assert index.match(make_event(tags=[["e", A], ["e", B], ["e", A]])) == ["a"]


def test_the_same_key_again_replaces() -> None:
    """A subscription that is opened again has its new filters alone."""
    index = LiveIndex[str]()
    index.add("a", [Filter(kinds=(1,))])
    index.add("a", [Filter(kinds=(2,))])
    assert [index.match(make_event(kind=kind)) for kind in (1, 2)] == [[], ["a"]]
    assert len(index) == 1


def test_subscriptions_that_cannot_match_stay_open() -> None:
    """A subscription whose filters can never match is open all the same, and so is one of the past."""
    index = LiveIndex[str]()
    index.add("a", [Filter(ids=())])
    index.add("b", [Filter(until=0)])
    index.add("c", [])
    assert (len(index), "a" in index, index.match(make_event())) == (3, True, [])
    assert index.match(make_event(created_at=0)) == ["b"]


def test_removing_what_is_not_there() -> None:
    """Closing a subscription that is not open changes nothing."""
    index = LiveIndex[str]()
    index.add("a", [Filter()])
    index.remove("b")
    index.remove("a")
    index.remove("a")
    assert (len(index), index.match(make_event())) == (0, [])


@pytest.mark.parametrize("since", [None, 50])
def test_many_subscriptions(since: int | None) -> None:
    """Many subscriptions with one filter, and many filters under one value, are found in the order of their arrival."""
    index = LiveIndex[int]()
    for number in range(30):
        index.add(number, [Filter(kinds=(1,), since=since and since + number)])
    assert index.match(make_event(kind=1)) == list(range(30))
    for number in range(0, 30, 2):
        index.remove(number)
    assert index.match(make_event(kind=1)) == list(range(1, 30, 2))
    for number in range(25):
        index.remove(number)
    assert index.match(make_event(kind=1)) == [25, 27, 29]


def test_a_large_filter_is_forgotten_in_pieces() -> None:
    """Nobody is found by it meanwhile, and others that name the same values are."""
    index = LiveIndex[str]()
    authors = tuple(f"{number:064x}" for number in range(3 * TIDIED_VALUES))
    large = Filter(authors=authors)
    index.add("a", [large])
    index.add("b", [Filter(authors=authors[:1], kinds=(1,))])
    index.remove("a")
    assert len(index._places["authors"]) == len(authors) - TIDIED_VALUES
    event = make_event(pubkey=authors[0], kind=1)
    assert index.match(event) == ["b"]
    index.tidy(2 * TIDIED_VALUES)
    assert not index.is_untidy
    assert index.match(event) == ["b"]
    assert len(index._places["authors"]) == 1


def test_a_filter_that_comes_again_before_it_is_forgotten() -> None:
    """It is found again, and so is one that comes while its values are being forgotten."""
    index = LiveIndex[str]()
    authors = tuple(f"{number:064x}" for number in range(3 * TIDIED_VALUES))
    large, other = Filter(authors=authors), Filter(authors=authors, kinds=(1,))
    for key, filter_ in (("a", large), ("b", other)):
        index.add(key, [filter_])
    index.remove("a")  # its values are being forgotten
    index.remove("b")  # waits for that
    index.add("c", [other])
    index.add("d", [large])
    index.tidy(10 * TIDIED_VALUES)
    for author in (authors[0], authors[-1]):
        assert index.match(make_event(pubkey=author, kind=1)) == ["c", "d"]
    index.remove("c")
    index.remove("d")
    index.tidy(10 * TIDIED_VALUES)
    assert (index._entries, any(index._places.values())) == ({}, False)


def test_what_is_left_to_forget_does_not_grow() -> None:
    """Who adds filters forgets more of the old ones than that."""
    index = LiveIndex[str]()
    for number in range(20):
        index.add("a", [Filter(authors=tuple(f"{number:032x}{author:032x}" for author in range(1000)))])
    assert len(index._places["authors"]) < 5000


@given(st.lists(SUBSCRIPTIONS, max_size=30), events())
def test_the_index_against_every_subscription(subscriptions: list[list[Filter]], event: Event) -> None:
    """The index finds what is found by matching every filter of every subscription."""
    index = LiveIndex[int]()
    for key, filters_ in enumerate(subscriptions):
        index.add(key, filters_)
    expected = [
        key for key, filters_ in enumerate(subscriptions) if any(matches_slowly(filter_, event) for filter_ in filters_)
    ]
    assert sorted(index.match(event)) == expected


class Subscriptions(RuleBasedStateMachine):
    """Subscriptions come and go in any order, while events are matched."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.index = LiveIndex[int]()
        self.open: dict[int, list[Filter]] = {}

    @rule(target=known, filters_=SUBSCRIPTIONS)
    def some_filters(self, filters_: list[Filter]) -> list[Filter]:
        return filters_

    @rule(keys=st.sets(st.integers(0, 20), min_size=1), filters_=known)
    def subscribe(self, keys: set[int], filters_: list[Filter]) -> None:
        for key in keys:
            self.index.add(key, filters_)
            self.open[key] = filters_

    @rule(keys=st.sets(st.integers(0, 20)))
    def unsubscribe(self, keys: set[int]) -> None:
        for key in keys:
            self.index.remove(key)
            self.open.pop(key, None)

    @rule(event=events())
    def match(self, event: Event) -> None:
        expected = [
            key for key, filters_ in self.open.items() if any(matches_slowly(filter_, event) for filter_ in filters_)
        ]
        assert sorted(self.index.match(event)) == sorted(expected)

    @invariant()
    def counts(self) -> None:
        assert len(self.index) == len(self.open)
        assert all(key in self.index for key in self.open)

    def teardown(self) -> None:
        """Nothing is left of subscriptions that are closed."""
        for key in self.open:
            self.index.remove(key)
        assert (len(self.index), self.index._entries, any(self.index._places.values())) == (0, {}, False)


TestSubscriptions = Subscriptions.TestCase
TestSubscriptions.settings = settings(max_examples=50, stateful_step_count=30)
