"""Filters and events for tests: strategies in which they often meet, and a slow, obvious matcher."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter

A, B, C = (digit * 64 for digit in "abc")
"""Ids or public keys."""
PUBLIC_KEYS = (A, B, C)
KINDS = (0, 1, 4, 7, 1059, 30023)
LETTERS = ("e", "p", "t", "T")
WORDS = ("", "x", "y", A)
TIMES = tuple(range(98, 103))

T = TypeVar("T")


def make_event(
    *,
    id: str = A,  # noqa: A002
    pubkey: str = B,
    created_at: int = 100,
    kind: int = 1,
    tags: list[list[str]] | None = None,
) -> Event:
    """Return an event, whose id and signature need not be right."""
    return Event(id=id, pubkey=pubkey, created_at=created_at, kind=kind, tags=tags or [], content="", sig="0" * 128)


def events() -> st.SearchStrategy[Event]:
    """Return events of few keys, kinds, times and tag values."""
    tag = st.lists(st.sampled_from(LETTERS + WORDS), max_size=3)
    return st.builds(
        make_event,
        id=st.sampled_from(PUBLIC_KEYS),
        pubkey=st.sampled_from(PUBLIC_KEYS),
        created_at=st.sampled_from(TIMES),
        kind=st.sampled_from(KINDS),
        tags=st.lists(tag, max_size=4),
    )


def filters() -> st.SearchStrategy[Filter]:
    """Return filters that may match such events, with short and long lists."""
    filler = tuple(f"{number:064x}" for number in range(10))
    hexes = _lists(PUBLIC_KEYS, filler)
    values = {letter: hexes if letter in "ep" else _lists(WORDS, filler) for letter in LETTERS}
    tags = st.lists(st.sampled_from(LETTERS), unique=True, max_size=2).flatmap(
        lambda letters: st.tuples(*(st.tuples(st.just(letter), values[letter]) for letter in letters))
    )
    times = st.none() | st.sampled_from(TIMES)
    return st.builds(
        Filter,
        ids=st.none() | hexes,
        authors=st.none() | hexes,
        kinds=st.none() | _lists(KINDS, tuple(range(40000, 40010))),
        tags=tags,
        since=times,
        until=times,
        limit=st.none() | st.integers(0, 5),
    )


def _lists(values: tuple[T, ...], filler: tuple[T, ...]) -> st.SearchStrategy[tuple[T, ...]]:
    chosen = st.lists(st.sampled_from(values), unique=True, max_size=3).map(tuple)
    return st.tuples(chosen, st.sampled_from([(), filler])).map(lambda parts: parts[0] + parts[1])


def objects(filter_: Filter) -> dict[str, object]:
    """Return the JSON object of a filter."""
    fields = {"ids": filter_.ids, "authors": filter_.authors, "kinds": filter_.kinds}
    tags = {f"#{letter}": list(values) for letter, values in filter_.tags}
    numbers = {"since": filter_.since, "until": filter_.until, "limit": filter_.limit}
    lists = {key: list(values) for key, values in fields.items() if values is not None}
    return {**lists, **tags, **{key: number for key, number in numbers.items() if number is not None}}


def matches_slowly(filter_: Filter, event: Event) -> bool:
    """Tell whether an event matches, one condition after the other (NIP-01)."""
    conditions = [
        filter_.ids is None or event.id in list(filter_.ids),
        filter_.authors is None or event.pubkey in list(filter_.authors),
        filter_.kinds is None or event.kind in list(filter_.kinds),
        filter_.since is None or event.created_at >= filter_.since,
        filter_.until is None or event.created_at <= filter_.until,
    ]
    for letter, values in filter_.tags:
        of_event = [tag[1] for tag in event.tags if len(tag) >= 2 and tag[0] == letter]
        conditions.append(any(value in values for value in of_event))
    return all(conditions)
