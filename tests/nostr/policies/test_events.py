"""Policies about single events: sizes, credentials, media, times, expiration, deletions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import WALL_S, event, verdict

from pyryrelay.nostr.events import canonical, indexed_tags
from pyryrelay.nostr.policies import events


@given(st.text(max_size=50), st.integers(min_value=300, max_value=600))
def test_size_is_that_of_the_canonical_object(content: str, most: int) -> None:
    """An event is too large if the bytes that are stored are more."""
    one = event(content=content)
    expected = f"invalid: event is larger than {most} bytes" if len(canonical(one).json) > most else None
    assert verdict(events.max_bytes(most), one) == expected


def test_number_of_tags() -> None:
    """Tags are counted whatever they are."""
    assert verdict(events.max_tags(2), event(tags=[["e"], []])) is None
    assert verdict(events.max_tags(2), event(tags=[["e"], [], ["x"]])) == "invalid: event has more than 2 tags"


@given(st.sampled_from(["e", "E", "ä", "", "aa", "1"]), st.text(max_size=12), st.integers(1, 12))
def test_tag_values(name: str, value: str, most: int) -> None:
    """The bytes of element 1 count, in tags that are indexed only."""
    one = event(tags=[[], ["t"], [name, value, "x" * 100]])
    is_long = any(len(indexed.encode()) > most for _, indexed in indexed_tags(one))
    expected = f"invalid: a tag value is longer than {most} bytes" if is_long else None
    assert verdict(events.max_tag_value_bytes(most), one) == expected


def test_content_length_is_in_characters() -> None:
    """A character of four bytes counts as one."""
    policy = events.max_content_chars(3)
    assert verdict(policy, event(content="😀😀😀")) is None
    assert verdict(policy, event(content="abcd")) == "invalid: content is longer than 3 characters"


@pytest.mark.parametrize(
    ("kind", "only", "ignored", "is_refused"),
    [
        (1, None, (), True),
        (1, {1}, (), True),
        (2, {1}, (), False),
        (1, None, {1}, False),
        (1, {1}, {1}, False),
    ],
)
def test_indexed_tags(kind: int, only: set[int] | None, ignored: set[int], *, is_refused: bool) -> None:
    """Tags that are indexed are counted, for the kinds that the limit is for."""
    policy = events.max_indexed_tags(2, only, ignored)
    refused = "invalid: event has more than 2 indexed tags"
    assert verdict(policy, event(kind, tags=[["t", "1"]] * 3)) == (refused if is_refused else None)
    assert verdict(policy, event(kind, tags=[["t", "1"], ["t", "2"], ["t"], ["tt", "1"]])) is None
    assert verdict(policy, event(kind, tags=[["t", "1"]])) is None


@pytest.mark.parametrize("kind", [22242, 27235])
def test_credentials_are_never_published(kind: int) -> None:
    """Events that prove who someone is are refused, with their kind."""
    assert verdict(events.no_credentials, event(kind)) == f"blocked: kind {kind} is never published"
    assert verdict(events.no_credentials, event(kind + 1)) is None


@pytest.mark.parametrize(
    ("content", "is_refused"), [("x data:image/png", True), ("data:video/", True), ("data:", False)]
)
def test_inline_media(content: str, *, is_refused: bool) -> None:
    """Images and videos inside the content are refused."""
    expected = "blocked: content is not accepted here" if is_refused else None
    assert verdict(events.no_inline_media(), event(content=content)) == expected


def test_only_protected() -> None:
    """A tag whose only element is a hyphen protects an event; nothing else does."""
    policy = events.only_protected()
    assert verdict(policy, event(tags=[["-"]])) is None
    for tags in ([], [["-", ""]], [["t", "-"]]):
        assert verdict(policy, event(tags=tags)) == "blocked: protected events only"


@pytest.mark.parametrize(
    ("kind", "age_s", "expected"),
    [
        (1, -900, None),
        (1, -901, "invalid: created_at is more than 900 s in the future"),
        (1, 1000, None),
        (1, 1001, "invalid: created_at is more than 1000 s in the past"),
        (0, 1001, None),
        (10_002, 1001, None),
        (30_023, 1001, "invalid: created_at is more than 1000 s in the past"),
        (20_000, 60, None),
        (20_000, 61, "invalid: ephemeral event is older than 60 s"),
        (20_000, 2000, "invalid: ephemeral event is older than 60 s"),
    ],
)
def test_time_window(kind: int, age_s: int, expected: str | None) -> None:
    """Both ends are inclusive; replaceable events are spared, and ephemerals have a shorter past."""
    policy = events.time_window(900.0, 1000.0, 60.0, spares_replaceable=True)
    assert verdict(policy, event(kind, created_at=WALL_S - age_s)) == expected


def test_replaceable_events_can_be_bound_too() -> None:
    """Other relays spare no kind."""
    policy = events.time_window(None, 1000.0, None, spares_replaceable=False)
    assert verdict(policy, event(0, created_at=0)) == "invalid: created_at is more than 1000 s in the past"
    assert verdict(policy, event(20_000, created_at=WALL_S - 999)) is None


def test_a_window_without_ends() -> None:
    """What is off refuses nothing, however far it is."""
    policy = events.time_window(None, None, 0.5, spares_replaceable=True)
    assert verdict(policy, event(created_at=2**53 - 1)) is None
    assert verdict(policy, event(created_at=0)) is None
    assert verdict(policy, event(20_000, created_at=WALL_S - 1)) == "invalid: ephemeral event is older than 0.5 s"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], None),
        ([["expiration", str(WALL_S + 1)]], None),
        ([["expiration", str(WALL_S)]], "invalid: event has expired"),
        ([["expiration", str(WALL_S + 9)], ["expiration", "0"]], "invalid: event has expired"),
        ([["expiration", "soon"]], "invalid: expiration must be a unix time"),
        ([["expiration"]], "invalid: expiration must be a unix time"),
    ],
)
def test_expiration(tags: list[list[str]], expected: str | None) -> None:
    """The earliest expiration counts, and the second of it is over."""
    assert verdict(events.expires_later(), event(tags=tags)) == expected


@given(st.lists(st.sampled_from(["e", "a", "k", "p"]), max_size=6), st.integers(1, 4))
def test_deletions(names: list[str], most: int) -> None:
    """A deletion names something, by ``e`` and ``a`` tags, and not too much."""
    one = event(5, tags=[[], *([name, "x"] for name in names)])
    named = names.count("e") + names.count("a")
    too_many = f"invalid: deletion names more than {most} events" if named > most else None
    assert verdict(events.deletions(most), one) == (too_many if named else "invalid: deletion names nothing")
    assert verdict(events.deletions(None), one) == (None if named else "invalid: deletion names nothing")
    assert verdict(events.deletions(most), event(1, tags=one.tags)) is None
