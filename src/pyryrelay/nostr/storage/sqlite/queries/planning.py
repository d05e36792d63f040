"""The choice of the index by which a filter is answered. PURE.

A plan turns a filter into ranges of one index, in each of which the entries are in the order of answers: newest first,
then the smaller id. The order of preference is that of the specification (section 8): ids, the tag key with the fewest
values, authors with kinds, authors, kinds, time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from pyryrelay.nostr.events import MAX_CREATED_AT
from pyryrelay.nostr.filters import Filter, can_match
from pyryrelay.nostr.storage.sqlite.schema import tag_key

__all__ = ["Index", "Key", "Plan", "plan"]

MAX_PAIRED_KINDS: Final = 16
"""With more kinds than this, it is cheaper to ask which kinds an author has than to try each kind with each author."""

HEX_DIGITS: Final = 64
"""The length of values whose keys may be no hashes, so that anybody can find another value with the same key."""

Key: TypeAlias = tuple[bytes | int, ...]
"""What all entries of a range have in common: the values of the leading columns of the index."""


class Index(Enum):
    """The indexes of the store, and what leads each of them."""

    IDS = "ids"
    """By id; not in the order of answers."""
    TAGS = "tags"
    """By the key of a tag."""
    AUTHORS_KINDS = "authors and kinds"
    """By author, then kind."""
    AUTHORS = "authors"
    """The same index, where the kinds that an author has are looked up first."""
    KINDS = "kinds"
    TIME = "time"
    """By nothing but the order of answers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to find the events that match one filter.

    Attributes:
        index: the index that is read.
        leading: the values of its first column, and for authors and kinds those of its second: ``ranges`` pairs them.
        since, until: the first and the last second in question.
        kinds: the kinds that entries of the index must have, where the ranges do not see to that. None is any.
        unseen_kinds: kinds of authors that are not looked for.
        is_exact: every entry with one of ``kinds`` belongs to an event that matches, but for collisions of hashes.
    """

    index: Index
    leading: Sequence[bytes | int] = ()
    second: Sequence[int] = ()
    since: int = 0
    until: int = MAX_CREATED_AT
    kinds: frozenset[int] | None = None
    is_exact: bool = True
    unseen_kinds: Set[int] = frozenset()

    def ranges(self) -> Iterator[Key]:
        """Yield the key of each range. Those of `Index.AUTHORS` still lack the kind."""
        if self.index is Index.TIME:
            yield ()
        elif self.index is Index.AUTHORS_KINDS:
            for value in self.leading:
                for kind in self.second:
                    yield value, kind
        else:
            for value in self.leading:
                yield (value,)


def plan(filter_: Filter, unseen_kinds: Set[int] = frozenset()) -> Plan | None:
    """Return the plan for a filter, or None if there is nothing to look for.

    ``unseen_kinds`` are not looked for if the filter names its kinds.
    """
    if not can_match(filter_):
        return None
    since = filter_.since or 0
    until = MAX_CREATED_AT if filter_.until is None else min(filter_.until, MAX_CREATED_AT)
    kinds = None if filter_.kinds is None else [kind for kind in filter_.kinds if kind not in unseen_kinds]
    if kinds == []:
        return None
    authors = [bytes.fromhex(author) for author in filter_.authors or ()]
    kind_set = None if kinds is None else frozenset(kinds)
    if filter_.ids is not None:
        is_exact = filter_.authors is None and not filter_.tags
        ids = [bytes.fromhex(event_id) for event_id in filter_.ids]
        return Plan(Index.IDS, ids, (), since, until, kind_set, is_exact)
    if filter_.tags:
        letter, values = min(filter_.tags, key=lambda tag: len(tag[1]))
        keys = sorted({tag_key(letter, value) for value in values})
        is_exact = filter_.authors is None and len(filter_.tags) == 1 and HEX_DIGITS not in map(len, values)
        return Plan(Index.TAGS, keys, (), since, until, kind_set, is_exact)
    if authors and (kinds is None or len(kinds) > MAX_PAIRED_KINDS):
        return Plan(Index.AUTHORS, authors, (), since, until, kind_set, unseen_kinds=unseen_kinds)
    if authors and kinds:
        return Plan(Index.AUTHORS_KINDS, authors, kinds, since, until)
    if kinds:
        return Plan(Index.KINDS, kinds, (), since, until)
    return Plan(Index.TIME, since=since, until=until)
