"""Tables and rules in options: what they refuse, and that they come back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.config.types import InvalidValueError, OptionType
from pyryrelay.nostr.options.types.rules import (
    DIFFICULTIES,
    KIND_QUOTAS,
    REFUSAL_TEXTS,
    RETENTION,
    WORK_QUOTA,
    RetentionRule,
)

LINE = "blocked this key is banned"


@pytest.mark.parametrize(
    ("option_type", "text"),
    [
        (DIFFICULTIES, "1"),
        (DIFFICULTIES, "1-2=3"),
        (DIFFICULTIES, "65536=3"),
        (DIFFICULTIES, "1=257"),
        (DIFFICULTIES, "1=many"),
        (REFUSAL_TEXTS, f"{LINE}="),
        (REFUSAL_TEXTS, "blocked nothing=nichts"),
        (KIND_QUOTAS, "1"),
        (KIND_QUOTAS, "1=often"),
        (KIND_QUOTAS, "x=1/minute"),
        (RETENTION, "1"),
        (RETENTION, "1=long"),
        (RETENTION, "1=1d,"),
        (RETENTION, "1=1d,0"),
        (RETENTION, "x=1d"),
        (WORK_QUOTA, "much"),
    ],
)
def test_what_is_refused(option_type: OptionType[Any], text: str) -> None:
    """A text that does not fit is named, with a problem that follows it."""
    with pytest.raises(InvalidValueError) as caught:
        option_type.read((text,))
    assert caught.value.problem


@given(
    st.frozensets(st.integers(0, 65_535), min_size=1, max_size=5),
    st.none() | st.integers(0, 10**9 - 1),
    st.none() | st.integers(1, 10**9 - 1),
)
def test_rules_of_retention_come_back(kinds: frozenset[int], age_s: int | None, newest: int | None) -> None:
    """Every rule can be written."""
    rules = (RetentionRule(kinds, age_s, newest),)
    assert RETENTION.read(RETENTION.write(rules)) == rules


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("7s", 7),
        ("2m", 120),
        ("2h", 7200),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1y", 31_536_000),
        ("off", None),
    ],
)
def test_ages(text: str, seconds: int) -> None:
    """Ages have the units that quotas have, and weeks and years."""
    assert RETENTION.read((f"1={text}",))[0].age_s == seconds
