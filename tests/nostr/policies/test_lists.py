"""Lists: kinds, authors, events, addresses and words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import ALICE, BOB, event, verdict

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.policies.lists import Lists, list_policies

NO_CONTENT = "blocked: content is not accepted here"


def refusal_of(lists: Lists, one: Event) -> str | None:
    """Return the first refusal of an event by lists."""
    texts = (verdict(policy, one) for policy in list_policies(lists, frozenset({4})))
    return next((text for text in texts if text is not None), None)


def test_empty_lists_cost_nothing() -> None:
    """There is no policy for a list without entries."""
    assert list(list_policies(Lists(), frozenset())) == []


@given(st.frozensets(st.integers(0, 8)), st.frozensets(st.integers(0, 8)), st.integers(0, 8))
def test_kinds(allowed: frozenset[int], denied: frozenset[int], kind: int) -> None:
    """Denied kinds are refused, and with a list of allowed ones all others but deletions."""
    is_refused = kind in denied or (bool(allowed) and kind not in allowed and kind != 5)
    lists = Lists(allowed_kinds=allowed, denied_kinds=denied)
    assert refusal_of(lists, event(kind)) == (f"blocked: kind {kind} is not accepted here" if is_refused else None)


def test_authors_and_events() -> None:
    """Denied keys and ids are refused, keys first."""
    lists = Lists(denied_keys=frozenset({BOB}), denied_events=frozenset({"e" * 64}))
    assert refusal_of(lists, event()) is None
    assert refusal_of(lists, event(pubkey=BOB, id="e" * 64)) == "blocked: this key is banned"
    assert refusal_of(lists, event(id="e" * 64)) == "blocked: this event is banned"


@pytest.mark.parametrize(
    ("entry", "is_refused"),
    [
        (f"30617:{ALICE}:repo", True),
        (f"30618:{ALICE}:repo", False),
        (f"30617:{BOB}:repo", False),
        (f"30617:{ALICE}:rep", False),
        (f"{ALICE}:*", True),
        (f"{BOB}:*", False),
        ("*:repo", True),
        ("*:other", False),
    ],
)
def test_addresses(entry: str, *, is_refused: bool) -> None:
    """An address, all of a key, or an identifier of anybody; other events have no address."""
    lists = Lists(denied_addresses=frozenset({entry}))
    expected = "blocked: this event is banned" if is_refused else None
    assert refusal_of(lists, event(30617, tags=[["d", "repo"]])) == expected
    assert refusal_of(lists, event(1, tags=[["d", "repo"]])) is None


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (event(content="Visit the CASINO!"), NO_CONTENT),
        (event(content="casinos are not meant"), None),
        (event(content="#casino"), NO_CONTENT),
        (event(content="hello", tags=[["t", "Casino"]]), NO_CONTENT),
        (event(content="hello", tags=[["p", "casino"]]), None),
        (event(4, content="casino"), None),
        (event(content="see (spam.example)."), NO_CONTENT),
        (event(content="SPAM.example"), NO_CONTENT),
        (event(content="notspam.example"), None),
        (event(content="die STRASSE"), NO_CONTENT),
    ],
)
def test_words(one: Event, expected: str | None) -> None:
    """Whole words count, in any case, in content and hashtags, and private kinds are not looked into."""
    assert refusal_of(Lists(denied_words=frozenset({"casino", "spam.example", "strasse"})), one) == expected


def test_plain_words_alone() -> None:
    """Without words that have other characters inside, a text is split once."""
    assert refusal_of(Lists(denied_words=frozenset({"casino"})), event(content="a spam.example")) is None


@given(st.frozensets(st.text("abc", min_size=1, max_size=3), min_size=1), st.text("abcA .-", max_size=30))
def test_words_against_a_slow_search(denied: frozenset[str], content: str) -> None:
    """A word is found if and only if a search for it between word boundaries finds it."""
    found = any(re.search(rf"\b{word}\b", content.casefold()) for word in denied)
    assert refusal_of(Lists(denied_words=denied), event(content=content)) == (NO_CONTENT if found else None)
