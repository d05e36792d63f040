"""Policies about the shape of filters, and about filters that ask for everybody's events: section 9. PURE.

A filter is a *scrape* if it names no ids, authors and tags, and *precise* if it names ids, or two of authors, kinds and
tag keys. Units: `_s` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pyryrelay.nostr.filters import Filter, value_count
from pyryrelay.nostr.policies.access import FilterPolicy
from pyryrelay.nostr.policies.refusal import (
    NAME_AUTHORS,
    NAME_SOMETHING,
    NAME_TWO,
    NARROW,
    OTHER_FILTERS,
    TOO_COMPLEX,
    TOO_MANY_FILTERS,
    TOO_MANY_TAG_KEYS,
    TOO_MANY_VALUES,
    Context,
    Refused,
)

NARROW_LIMIT: Final = 100
NARROW_WINDOW_S: Final = 7200

_PRECISE: Final = 2
_NOTE: Final = 1
_MOST_COMPLEX_TAG_KEYS: Final = 2
_MOST_COMPLEX: Final = 4


def max_filters(most: int) -> FilterPolicy:
    """Refuse messages with more filters."""
    refused = TOO_MANY_FILTERS(most)
    return lambda filters, _context: refused if len(filters) > most else None


def max_values(most: int) -> FilterPolicy:
    """Refuse messages whose filters have more values together."""
    refused = TOO_MANY_VALUES(most)
    return lambda filters, _context: refused if value_count(filters) > most else None


def max_tag_keys(most: int) -> FilterPolicy:
    """Refuse messages with a filter that has more tag keys."""
    return _each(lambda one, _wall_s: len(one.tags) > most, TOO_MANY_TAG_KEYS(most))


def _each(is_refused: Callable[[Filter, int], bool], refused: Refused) -> FilterPolicy:
    """Return the policy that refuses messages with a filter for which ``is_refused`` is true."""

    def policy(filters: Sequence[Filter], context: Context) -> Refused | None:
        return refused if any(is_refused(one, context.wall_s) for one in filters) else None

    return policy


def is_precise(one: Filter) -> bool:
    """Tell whether a filter names ids, or two of authors, kinds and tag keys."""
    named = (one.authors is not None) + (one.kinds is not None) + len(one.tags)
    return one.ids is not None or named >= _PRECISE


def is_scrape(one: Filter) -> bool:
    """Tell whether a filter asks for everybody's events."""
    return one.ids is None and one.authors is None and not one.tags


def _is_wide(one: Filter, wall_s: int) -> bool:
    """Tell whether a scrape has neither a small limit nor a short window."""
    if not is_scrape(one) or (one.limit is not None and one.limit <= NARROW_LIMIT):
        return False
    until = wall_s if one.until is None else one.until
    return one.since is None or until - one.since > NARROW_WINDOW_S


def _names_nothing(one: Filter, _wall_s: int) -> bool:
    return is_scrape(one) and one.kinds is None


def _is_scrape_of_notes(one: Filter, _wall_s: int) -> bool:
    return is_scrape(one) and (one.kinds is None or _NOTE in one.kinds)


SCRAPE_POLICIES: Final = {
    "bounded": _each(_is_wide, NARROW()),
    "authors": _each(_is_scrape_of_notes, NAME_AUTHORS()),
    "named": _each(_names_nothing, NAME_SOMETHING()),
    "precise": _each(lambda one, _wall_s: not is_precise(one), NAME_TWO()),
}
"""The values of ``--nostr-scrape``."""


def not_complex() -> FilterPolicy:
    """Refuse filters with more than two tag keys, and more than four kinds and tag keys together."""
    return _each(
        lambda one, _wall_s: (
            len(one.tags) > _MOST_COMPLEX_TAG_KEYS and len(one.tags) + len(one.kinds or ()) > _MOST_COMPLEX
        ),
        TOO_COMPLEX(),
    )


def max_kinds(most: int) -> FilterPolicy:
    """Refuse filters that name more kinds."""
    return _each(lambda one, _wall_s: len(one.kinds or ()) > most, OTHER_FILTERS())


def only_kinds(allowed: frozenset[int]) -> FilterPolicy:
    """Refuse filters that do not name kinds, or others than these."""
    return _each(lambda one, _wall_s: one.kinds is None or not allowed.issuperset(one.kinds), OTHER_FILTERS())


def author_or_tag() -> FilterPolicy:
    """Refuse filters that name no authors, and neither ``#e`` nor ``#p``."""
    return _each(
        lambda one, _wall_s: one.authors is None and not any(letter in ("e", "p") for letter, _ in one.tags),
        OTHER_FILTERS(),
    )
