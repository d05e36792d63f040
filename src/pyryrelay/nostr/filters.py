"""Filters of REQ and COUNT: parsing, and the one matcher that live delivery, scans and counts use. PURE.

A filter names what an event must have; the keys are ANDed, the values of a list are ORed (NIP-01, spec section 6).
Everything is compared byte for byte: keys, ids and values are `str` as in the JSON text, ids and public keys in 64
lower-case hex digits. Times are unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from pyryrelay.nostr.events import DECODE_ERRORS, MAX_CREATED_AT, MAX_KIND, NOT_JSON, Event

__all__ = ["Filter", "FilterError", "Matcher", "can_match", "filter_of", "matches", "parse_filter"]

NO_KIND: Final = MAX_KIND + 1
"""What kinds above 65535 are read as. No event has it, and the store's integers can hold it."""

_HEX_DIGITS: Final = b"0123456789abcdef"
_HEX_LETTERS: Final = frozenset("ep")
"""The tags whose values are ids or public keys (NIP-01)."""
_Value = TypeVar("_Value")
_decode = msgspec.json.Decoder(float_hook=lambda text: 0.0).decode
"""Reads all fractions as the same: no key takes one, and by itself msgspec refuses those that exceed a double."""
_SMALL: Final = 8
"""Up to this many values, a tuple is searched about as fast as a set, in less memory."""


class Filter(msgspec.Struct, frozen=True, gc=False):
    """A filter without repeated values; None where a key is absent.

    The tags are pairs of a letter and its values. Both, and the values, are in the order of the JSON text, on which the
    HyperLogLog of a COUNT depends.
    """

    ids: tuple[str, ...] | None = None
    authors: tuple[str, ...] | None = None
    kinds: tuple[int, ...] | None = None
    tags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    since: int | None = None
    until: int | None = None
    limit: int | None = None


class FilterError(ValueError):
    """A filter is refused; the text, prefix included, is what the client is told."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def parse_filter(raw: bytes | msgspec.Raw) -> Filter:
    """Parse the JSON text of a filter.

    Raises:
        FilterError: the filter is refused, or is no JSON (``invalid: not JSON``).
    """
    try:
        decoded = _decode(raw)
    except DECODE_ERRORS:
        raise FilterError(NOT_JSON) from None
    return filter_of(decoded)


def filter_of(decoded: object) -> Filter:
    """Return the filter of a decoded JSON value, whose objects have their keys in the order of the text.

    Null counts as absent, whatever the key; times below 0 count as 0.

    Raises:
        FilterError: the filter is refused.
    """
    if not isinstance(decoded, dict):
        raise FilterError("invalid: filter must be an object")
    fields: dict[str, object] = {}
    tags: list[tuple[str, tuple[str, ...]]] = []
    for key, value in decoded.items():
        if value is None:
            continue
        if parse := _PARSERS.get(key):
            fields[key] = parse(key, value)
        elif len(key) == 2 and key[0] == "#" and key.isascii() and key[1].isalpha():
            tags.append((key[1], _hex_list(key, value) if key[1] in _HEX_LETTERS else _text_list(key, value)))
        else:
            raise FilterError("unsupported: filter key")
    return Filter(tags=tuple(tags), **fields)  # type: ignore[arg-type]  # each parser returns its field's type


def _hex_list(key: str, value: object) -> tuple[str, ...]:
    """Check a list of ids or public keys, thousands in less than a millisecond."""
    values = _strings(value)
    if values is None or not _all_hex(values):
        raise FilterError(f"invalid: {key} must be a list of strings of 64 lower-case hex digits")
    return tuple(dict.fromkeys(values))


def _text_list(key: str, value: object) -> tuple[str, ...]:
    values = _strings(value)
    if values is None:
        raise FilterError(f"invalid: {key} must be a list of strings")
    return tuple(dict.fromkeys(values))


def _strings(value: object) -> list[str] | None:
    """Return a list of strings as it is, None for anything else."""
    return value if isinstance(value, list) and set(map(type, value)) <= {str} else None


def _all_hex(values: list[str]) -> bool:
    joined = "".join(values)
    return (
        set(map(len, values)) <= {64} and joined.isascii() and not joined.encode("ascii").translate(None, _HEX_DIGITS)
    )


def _kinds(key: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not set(map(type, value)) <= {int} or min(value, default=0) < 0:
        raise FilterError(f"invalid: {key} must be a list of integers from 0")
    return tuple(dict.fromkeys(min(kind, NO_KIND) for kind in value))


def _time(key: str, value: object) -> int:
    """Check a time; one that no event can reach becomes the first such, which the store's integers can hold."""
    if type(value) is not int:  # bool is a subclass
        raise FilterError(f"invalid: {key} must be an integer")
    return min(max(value, 0), MAX_CREATED_AT + 1)


def _limit(key: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise FilterError(f"invalid: {key} must be an integer from 0")
    return min(value, MAX_CREATED_AT)


def _search(key: str, value: object) -> object:
    if isinstance(value, str):
        raise FilterError("unsupported: search is off here")
    raise FilterError(f"invalid: {key} must be a string")


_PARSERS: Final[dict[str, Callable[[str, object], object]]] = {
    "ids": _hex_list,
    "authors": _hex_list,
    "kinds": _kinds,
    "since": _time,
    "until": _time,
    "limit": _limit,
    "search": _search,
}


class Matcher(msgspec.Struct, frozen=True, gc=False):
    """A filter prepared for matching many events; call it with an event. Equal matchers match the same events.

    Sets stand where the filter has many values. None means that the filter does not look at the field.
    """

    ids: tuple[str, ...] | frozenset[str] | None
    authors: tuple[str, ...] | frozenset[str] | None
    kinds: tuple[int, ...] | frozenset[int] | None
    tags: tuple[tuple[str, tuple[str, ...] | frozenset[str]], ...]
    since: int
    until: int

    @classmethod
    def of(cls, filter_: Filter) -> Matcher:
        """Prepare a filter."""
        return cls(
            _searchable(filter_.ids),
            _searchable(filter_.authors),
            _searchable(filter_.kinds),
            tuple((letter, values if len(values) <= _SMALL else frozenset(values)) for letter, values in filter_.tags),
            0 if filter_.since is None else filter_.since,
            MAX_CREATED_AT if filter_.until is None else filter_.until,
        )

    def __call__(self, event: Event) -> bool:
        """Tell whether an event matches; the limit has no part in it."""
        if (kinds := self.kinds) is not None and event.kind not in kinds:
            return False
        if not self.since <= event.created_at <= self.until:
            return False
        if (authors := self.authors) is not None and event.pubkey not in authors:
            return False
        if (ids := self.ids) is not None and event.id not in ids:
            return False
        for letter, values in self.tags:
            for tag in event.tags:
                if len(tag) > 1 and tag[0] == letter and tag[1] in values:
                    break
            else:
                return False
        return True


def _searchable(values: tuple[_Value, ...] | None) -> tuple[_Value, ...] | frozenset[_Value] | None:
    return values if values is None or len(values) <= _SMALL else frozenset(values)


def matches(filter_: Filter, event: Event) -> bool:
    """Tell whether an event matches a filter. To match many events, keep `Matcher.of(filter)` and call that."""
    return Matcher.of(filter_)(event)


def can_match(filter_: Filter) -> bool:
    """Tell whether some event could match: no list is empty, there is a possible kind, and `since` is not too late."""
    lists: tuple[tuple[object, ...] | None, ...] = (
        filter_.ids,
        filter_.authors,
        filter_.kinds,
        *(values for _, values in filter_.tags),
    )
    matcher = Matcher.of(filter_)
    return () not in lists and filter_.kinds != (NO_KIND,) and matcher.since <= min(matcher.until, MAX_CREATED_AT)


def value_count(filters: Iterable[Filter]) -> int:
    """Return the number of values of all lists of all filters together."""
    return sum(
        len(filter_.ids or ())
        + len(filter_.authors or ())
        + len(filter_.kinds or ())
        + sum(len(values) for _, values in filter_.tags)
        for filter_ in filters
    )
