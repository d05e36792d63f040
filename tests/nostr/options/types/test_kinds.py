"""Kinds in options: what is refused, and that they come back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.config.types import InvalidValueError, OptionType
from pyryrelay.nostr.options.types.kinds import KINDS, write_kinds


@pytest.mark.parametrize(
    ("option_type", "text"),
    [
        (KINDS, "65536"),
        (KINDS, "9-8"),
        (KINDS, "-1"),
        (KINDS, "one"),
    ],
)
def test_what_is_refused(option_type: OptionType[Any], text: str) -> None:
    """A text that does not fit is named, with a problem that follows it."""
    with pytest.raises(InvalidValueError) as caught:
        option_type.read((text,))
    assert caught.value.problem


@given(st.frozensets(st.integers(0, 40)))
def test_kinds_come_back(kinds: frozenset[int]) -> None:
    """Kinds are written as ranges, in order, and read again."""
    texts = write_kinds(kinds)
    assert KINDS.read(texts) == kinds
    assert len(texts) == sum(kind - 1 not in kinds for kind in kinds)
