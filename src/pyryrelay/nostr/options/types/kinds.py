"""Kinds in options: numbers and ranges. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pyryrelay.config.types import InvalidValueError, OptionType, Texts

MAX_KIND: Final = 65_535
RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
"""A kind, or a range of kinds, which may be too large."""

_KINDS_FIX: Final = "write a kind from 0 to 65535, or a range such as 30000-39999"


def parse_kinds(texts: Iterable[str], fix: str = _KINDS_FIX) -> frozenset[int]:
    """Return the kinds that numbers and ranges name. Raises `InvalidValueError`."""
    kinds: set[int] = set()
    for text in texts:
        found = RANGE.fullmatch(text)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= MAX_KIND:
            raise InvalidValueError(text, "is not a kind or a range of kinds", fix)
        kinds.update(range(first, last + 1))
    return frozenset(kinds)


def write_kinds(kinds: Iterable[int]) -> Texts:
    """Return numbers and ranges that name the kinds, in order."""
    ranges: list[list[int]] = []
    for kind in sorted(kinds):
        if ranges and ranges[-1][1] == kind - 1:
            ranges[-1][1] = kind
        else:
            ranges.append([kind, kind])
    return tuple(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


KINDS: OptionType[frozenset[int]] = OptionType(
    "KINDS", _KINDS_FIX, parse_kinds, write_kinds, toml_types=(int,), repeatable=True
)
