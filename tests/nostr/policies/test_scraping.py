"""The shape of filters, and scrapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import ALICE, WALL_S, context

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.policies import scraping
from pyryrelay.nostr.policies.access import FilterPolicy
from pyryrelay.nostr.policies.scraping import SCRAPE_POLICIES, is_precise, is_scrape

P_TAG = (("p", (ALICE,)),)
OTHER = "blocked: this relay serves other filters"


def refusal_of(policy: FilterPolicy, *filters: Filter) -> str | None:
    """Return the text with which a policy refuses filters, or None."""
    refused = policy(filters, context())
    return None if refused is None else refused.text


def tags(count: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return so many tag keys."""
    return tuple((letter, ("x",)) for letter in "tuvwxyz"[:count])


def test_sizes() -> None:
    """Filters of a message, values of all of them, and tag keys of each are bounded."""
    two = (Filter(kinds=(1, 2)), Filter(kinds=(3,)))
    assert refusal_of(scraping.max_filters(2), *two) is None
    assert refusal_of(scraping.max_filters(1), *two) == "invalid: more than 1 filters"
    assert refusal_of(scraping.max_values(3), *two) is None
    assert refusal_of(scraping.max_values(2), *two) == "invalid: more than 2 values"
    assert refusal_of(scraping.max_tag_keys(2), Filter(tags=tags(2)), Filter(tags=tags(2))) is None
    assert refusal_of(scraping.max_tag_keys(2), Filter(), Filter(tags=tags(3))) == "invalid: more than 2 tag keys"


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 3))
def test_scores(ids: bool, authors: bool, kinds: bool, keys: int) -> None:
    """Ids count two; authors, kinds and each tag key one. A scrape has none of them but kinds."""
    one = Filter((ALICE,) if ids else None, (ALICE,) if authors else None, (1,) if kinds else None, tags(keys))
    assert is_precise(one) == (2 * ids + authors + kinds + keys >= 2)
    assert is_scrape(one) == (not ids and not authors and not keys)


@pytest.mark.parametrize(
    ("one", "refusing"),
    [
        (Filter(), {"bounded", "authors", "named", "precise"}),
        (Filter(limit=100), {"authors", "named", "precise"}),
        (Filter(limit=101), {"bounded", "authors", "named", "precise"}),
        (Filter(kinds=(1,), since=WALL_S - 7200), {"authors", "precise"}),
        (Filter(kinds=(1,), since=WALL_S - 7201), {"bounded", "authors", "precise"}),
        (Filter(kinds=(0,), since=100, until=7300), {"precise"}),
        (Filter(kinds=(0,), since=100, until=7301), {"bounded", "precise"}),
        (Filter(kinds=(0,), until=7301), {"bounded", "precise"}),
        (Filter(authors=(ALICE,)), {"precise"}),
        (Filter(authors=(ALICE,), kinds=(1,)), set()),
        (Filter(tags=P_TAG, kinds=(1,)), set()),
        (Filter(ids=(ALICE,)), set()),
    ],
)
def test_scrapes(one: Filter, refusing: set[str]) -> None:
    """Each rule refuses what the specification says, also in one filter of several."""
    harmless = Filter(ids=(ALICE,))
    assert {name for name, policy in SCRAPE_POLICIES.items() if refusal_of(policy, harmless, one)} == refusing


def test_texts_of_scrapes() -> None:
    """Clients are told what to name."""
    assert {name: refusal_of(policy, Filter()) for name, policy in SCRAPE_POLICIES.items()} == {
        "bounded": "blocked: narrow this to 100 events or two hours",
        "authors": "blocked: name authors for kind 1",
        "named": "blocked: name ids, authors, kinds or tags",
        "precise": "blocked: name two of authors, kinds and tags",
    }


@pytest.mark.parametrize(
    ("keys", "kinds", "is_refused"),
    [(3, (1, 2), True), (3, (1,), False), (2, (1, 2, 3, 4, 5), False), (5, None, True), (4, None, False)],
)
def test_complex_filters(keys: int, kinds: tuple[int, ...] | None, *, is_refused: bool) -> None:
    """More than two tag keys, and more than four tag keys and kinds together."""
    expected = "blocked: too many things to filter for" if is_refused else None
    assert refusal_of(scraping.not_complex(), Filter(kinds=kinds, tags=tags(keys))) == expected


def test_filters_of_one_application() -> None:
    """Kinds can be few, must be those that are named, and authors or a tag can be required."""
    assert refusal_of(scraping.max_kinds(2), Filter(kinds=(1, 2))) is None
    assert refusal_of(scraping.max_kinds(2), Filter(kinds=(1, 2, 3))) == OTHER
    assert refusal_of(scraping.max_kinds(2), Filter()) is None
    assert refusal_of(scraping.only_kinds(frozenset({1, 2})), Filter(kinds=(1,))) is None
    assert refusal_of(scraping.only_kinds(frozenset({1, 2})), Filter(kinds=(1, 3))) == OTHER
    assert refusal_of(scraping.only_kinds(frozenset({1, 2})), Filter()) == OTHER
    assert refusal_of(scraping.author_or_tag(), Filter(authors=(ALICE,))) is None
    assert refusal_of(scraping.author_or_tag(), Filter(tags=P_TAG)) is None
    assert refusal_of(scraping.author_or_tag(), Filter(tags=tags(1))) == OTHER
