"""JSON as strictly as the Nostr relay wants it, read slowly by the standard library, for comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

MAX_DEPTH: Final = 32
MAX_DIGITS: Final = 20


class Number(str):
    """A number as it is spelled."""

    __slots__ = ()


class NotJsonError(ValueError):
    """A text is no JSON, or not strict enough."""


def read(text: bytes) -> object:
    """Return the value of a text, in which numbers are not read and of repeated keys the last counts.

    Raises ``NotJsonError``.
    """
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_Members,
            parse_constant=_refuse,
            parse_int=Number,
            parse_float=Number,
        )
    except (ValueError, RecursionError) as error:
        raise NotJsonError from error
    _check(value)
    return _plain(value)


class _Members(list[object]):
    """The keys and values of an object, repeated ones included, in turn."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(item for pair in pairs for item in pair)


def _refuse(constant: str) -> None:
    raise NotJsonError(constant)


def _check(value: object) -> None:
    """Check depth, digits and surrogates, one level at a time."""
    level = [value]
    depth = 0
    while level:
        for item in level:
            _check_scalar(item)
        depth += any(isinstance(item, list) for item in level)
        level = [inner for item in level if isinstance(item, list) for inner in item]
    if depth > MAX_DEPTH:
        raise NotJsonError("too deep")


def _check_scalar(item: object) -> None:
    if isinstance(item, Number) and sum(map(str.isdigit, item)) > MAX_DIGITS:
        raise NotJsonError("too many digits")
    if isinstance(item, str) and any("\ud800" <= character <= "\udfff" for character in item):
        raise NotJsonError("lone surrogate")


def _plain(value: object) -> object:
    """Turn members into dictionaries."""
    if isinstance(value, _Members):
        pairs: Iterator[object] = iter(value)
        return {str(key): _plain(next(pairs)) for key in pairs}
    return [_plain(item) for item in value] if isinstance(value, list) else value
