"""Open subscriptions, found by the events that they match (spec section 8). PURE.

Each filter is entered under one field: its ids, else its authors, else its tag key with the fewest values, else its
kinds, else among those that every event is compared with. An event is looked up under its own id, author, tags and
kind, and only the filters found there are compared with it. What has led to a filter need not be compared again, so an
entry holds a matcher of the other fields alone.

Tens of thousands of connections hold subscriptions here, many of which say the same. A value is kept once, however many
filters name it, and a filter once, however many subscriptions have it.

A filter may name thousands of values, and a connection that ends may have a hundred such filters. So a filter that
nobody has any more is taken out a few values at a time, see `LiveIndex.tidy`; until then it matches for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import Final, Generic, TypeAlias, TypeVar

from msgspec.structs import replace

from pyryrelay.nostr.events import Event, indexed_tags
from pyryrelay.nostr.filters import Filter, Matcher, can_match

__all__ = ["LiveIndex"]

S = TypeVar("S", bound=Hashable)
T = TypeVar("T", bound=Hashable)

_SMALL: Final = 8
"""Up to this many members are kept in a tuple, which takes a fraction of the memory of a dict."""
TIDIED_VALUES: Final = 128
"""How many values of filters that nobody has any more are forgotten whenever a subscription is closed: all of most."""
MOST_RESTS: Final = 1024
"""How many matchers are remembered, so that filters which differ in their leading values alone share one."""
_EVERYTHING: Final = Matcher.of(Filter())
_ANY_FIELD: Final = ""
"""The field of filters that name no values. The others are `ids`, `authors`, `kinds` and the letters of tags."""

_Value: TypeAlias = str | int | bytes
"""Ids and authors are bytes, which take half of the memory of their digits."""
_Members: TypeAlias = tuple[T, ...] | dict[T, None]
"""A set that keeps the order of arrival."""
_Entries: TypeAlias = "_Entry[S] | _Members[_Entry[S]]"
"""The same of entries, where an entry that is alone stands for itself, since most are alone."""
_Identity: TypeAlias = tuple[str, tuple[_Value, ...], Matcher | None]
"""A filter: the field and the values under which it is entered, and a matcher of the rest, None for no rest."""


class LiveIndex(Generic[S]):
    """The filters of open subscriptions.

    A subscription is any hashable key, as cheap to hash and to compare as may be: it is done for every match.
    """

    def __init__(self) -> None:
        self._places: dict[str, dict[_Value, _Place[S]]] = {}
        self._entries: dict[_Identity, _Entry[S]] = {}
        self._held: dict[S, _Entries[S]] = {}
        self._rests: dict[Matcher, Matcher] = {}
        self._unused: deque[_Entry[S]] = deque()
        self._dropping: list[_Place[S]] = []
        self._dropped: _Entry[S] | None = None

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        """Tell whether a subscription is open."""
        return key in self._held

    def add(self, key: S, filters: Sequence[Filter]) -> None:
        """Open a subscription, in the place of one with the same key."""
        self.remove(key)
        held = tuple(dict.fromkeys(self._entry(filter_) for filter_ in filters if can_match(filter_)))
        for entry in held:
            entry.keys = _with(entry.keys, key)
        self._held[key] = held[0] if len(held) == 1 else held
        if self.is_untidy:
            # More than was added, so that what is left over does not grow.
            self.tidy(2 * sum(len(entry.identity[1]) for entry in held))

    def remove(self, key: S) -> None:
        """Close a subscription if it is open."""
        for entry in _each(self._held.pop(key, ())):
            entry.keys = _without(entry.keys, key)
            if not entry.keys and not entry.is_unused:
                entry.is_unused = True
                self._unused.append(entry)
        self.tidy(TIDIED_VALUES)

    @property
    def is_untidy(self) -> bool:
        """Whether there is something for `tidy` to do."""
        return bool(self._unused or self._dropping)

    def tidy(self, most: int) -> None:
        """Forget up to so many values of filters that nobody has any more."""
        while most > 0 and (self._dropping or self._unused):
            if not self._dropping:
                self._begin_drop(self._unused.popleft())
            most -= 1 + self._drop(most)

    def match(self, event: Event) -> list[S]:
        """Return the subscriptions that an event matches, each once."""
        found: list[S] = []
        for entry in self._candidates(event):
            if entry.rest is None or entry.rest(event):
                found.extend(entry.keys)
        return list(dict.fromkeys(found))

    def _candidates(self, event: Event) -> Iterable[_Entry[S]]:
        """Return the entries under the values of an event, each once."""
        by_tags: dict[_Place[S], None] = {}
        for letter, value in indexed_tags(event):
            if (places := self._places.get(letter)) and (place := places.get(value)):
                by_tags[place] = None
        tagged: Iterable[_Entry[S]] = chain.from_iterable([_each(place.entries) for place in by_tags])
        # A filter may name several of the tags. Of the other fields, an event has one value each.
        if len(by_tags) > 1:
            tagged = dict.fromkeys(tagged)
        fromhex = bytes.fromhex
        fields = (
            ("ids", fromhex(event.id)),
            ("authors", fromhex(event.pubkey)),
            ("kinds", event.kind),
            (_ANY_FIELD, _ANY_FIELD),
        )
        single = (self._places[field].get(value) for field, value in fields if field in self._places)
        return chain(chain.from_iterable(_each(place.entries) for place in single if place), tagged)

    def _entry(self, filter_: Filter) -> _Entry[S]:
        """Return the entry of a filter, which is made if there is none."""
        field, named, rest = _entered_under(filter_)
        table = self._places.setdefault(field, {})
        places = [table.get(value) or table.setdefault(value, _Place(value)) for value in named]
        matcher = self._shared(Matcher.of(rest))
        identity = (field, tuple(place.value for place in places), None if matcher == _EVERYTHING else matcher)
        if (entry := self._entries.get(identity)) is None:
            entry = self._entries[identity] = _Entry(identity)
            for place in places:
                place.enter(entry)
        return entry

    def _shared(self, matcher: Matcher) -> Matcher:
        """Return a matcher that is equal, and that entries have already if it was seen lately."""
        if len(self._rests) >= MOST_RESTS and matcher not in self._rests:
            self._rests.clear()
        return self._rests.setdefault(matcher, matcher)

    def _begin_drop(self, entry: _Entry[S]) -> None:
        """Forget an entry, unless somebody has its filter again; `_drop` takes its values out."""
        entry.is_unused = False
        if entry.keys:
            return
        field, named, _ = entry.identity
        table = self._places[field]
        del self._entries[entry.identity]
        self._dropped, self._dropping = entry, [table[value] for value in named]

    def _drop(self, most: int) -> int:
        """Take up to so many values out, where nobody else names them; return how many it were."""
        entry, places = self._dropped, self._dropping
        if entry is None:
            return 0
        table = self._places[entry.identity[0]]
        count = min(most, len(places))
        for _ in range(count):
            place = places.pop()
            place.leave(entry)
            if not place.entries:
                del table[place.value]
        if not places:
            self._dropped = None
        return count


class _Place(Generic[S]):
    """A value, and the entries of the filters that are entered under it."""

    __slots__ = ("entries", "value")

    def __init__(self, value: _Value) -> None:
        self.value = value
        self.entries: _Entries[S] = ()

    def enter(self, entry: _Entry[S]) -> None:
        """Add an entry."""
        self.entries = _with(_each(self.entries), entry) if self.entries else entry

    def leave(self, entry: _Entry[S]) -> None:
        """Take an entry out."""
        left = _without(_each(self.entries), entry)
        self.entries = left[0] if isinstance(left, tuple) and len(left) == 1 else left


class _Entry(Generic[S]):
    """A filter, and the subscriptions that have it."""

    __slots__ = ("identity", "is_unused", "keys", "rest")

    def __init__(self, identity: _Identity) -> None:
        self.identity = identity
        self.rest = identity[2]
        self.keys: _Members[S] = ()
        self.is_unused = False
        """Whether it waits to be forgotten."""


def _each(entries: _Entries[S]) -> _Members[_Entry[S]]:
    """Return entries as a set."""
    return (entries,) if isinstance(entries, _Entry) else entries


def _entered_under(filter_: Filter) -> tuple[str, tuple[_Value, ...], Filter]:
    """Return the field and the values under which a filter is entered, and the filter without that field."""
    if filter_.ids is not None:
        return "ids", tuple(map(bytes.fromhex, filter_.ids)), replace(filter_, ids=None)
    if filter_.authors is not None:
        return "authors", tuple(map(bytes.fromhex, filter_.authors)), replace(filter_, authors=None)
    if filter_.tags:
        fewest = min(filter_.tags, key=lambda tag: len(tag[1]))
        return *fewest, replace(filter_, tags=tuple(tag for tag in filter_.tags if tag is not fewest))
    if filter_.kinds is not None:
        return "kinds", filter_.kinds, replace(filter_, kinds=None)
    return _ANY_FIELD, (_ANY_FIELD,), filter_


def _with(members: _Members[T], member: T) -> _Members[T]:
    """Return a set with one more member."""
    if isinstance(members, dict):
        members[member] = None
        return members
    return (*members, member) if len(members) < _SMALL else dict.fromkeys((*members, member))


def _without(members: _Members[T], member: T) -> _Members[T]:
    """Return a set without one of its members."""
    if isinstance(members, dict):
        del members[member]
        # Half of what made it a dict, so that coming and going at the border is cheap.
        return members if len(members) > _SMALL // 2 else tuple(members)
    return tuple(other for other in members if other != member)
