"""The types of Nostr's options: what they refuse, and that texts come back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_option_samples import ID, KEY, NPUB

from pyryrelay.config.types import InvalidValueError, OptionType
from pyryrelay.nostr.options import types
from pyryrelay.nostr.options.types import RetentionRule, is_relay_url, write_kinds

LINE = "blocked this key is banned"


@pytest.mark.parametrize(
    ("option_type", "text"),
    [
        (types.KINDS, "65536"),
        (types.KINDS, "9-8"),
        (types.KINDS, "-1"),
        (types.KINDS, "one"),
        (types.KEYS, KEY[:-1]),
        (types.KEYS, NPUB[:-1] + "q"),
        (types.OPTIONAL_KEY, "me"),
        (types.EVENT_IDS, ID.upper()),
        (types.EVENT_IDS, ID[:-1]),
        (types.WORDS, ""),
        (types.WORDS, "two words"),
        (types.WORDS, "..."),
        (types.ADDRESSES, "*:"),
        (types.ADDRESSES, "30617"),
        (types.ADDRESSES, f"30617:{KEY}"),
        (types.ADDRESSES, f"65536:{KEY}:x"),
        (types.ADDRESSES, f"all:{KEY}:x"),
        (types.ADDRESSES, "30617:me:x"),
        (types.ADDRESSES, "me:*"),
        (types.DIFFICULTIES, "1"),
        (types.DIFFICULTIES, "1-2=3"),
        (types.DIFFICULTIES, "65536=3"),
        (types.DIFFICULTIES, "1=257"),
        (types.DIFFICULTIES, "1=many"),
        (types.REFUSAL_TEXTS, f"{LINE}="),
        (types.REFUSAL_TEXTS, "blocked nothing=nichts"),
        (types.KIND_QUOTAS, "1"),
        (types.KIND_QUOTAS, "1=often"),
        (types.KIND_QUOTAS, "x=1/minute"),
        (types.RETENTION, "1"),
        (types.RETENTION, "1=long"),
        (types.RETENTION, "1=1d,"),
        (types.RETENTION, "1=1d,0"),
        (types.RETENTION, "x=1d"),
        (types.WORK_QUOTA, "much"),
        (types.TEXT, "x" * 10_001),
        (types.PATH, "nostr"),
        (types.PATH, "/a?b"),
        (types.RELAY_URL, "https://relay.example.com"),
        (types.DATABASE, "sqlite:"),
        (types.DATABASE, "postgresql://localhost"),
        (types.FEES, "[]"),
        (types.FEES, "{"),
        (types.FEES, "[" * 100_000),
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
    assert types.KINDS.read(texts) == kinds
    assert len(texts) == sum(kind - 1 not in kinds for kind in kinds)


@given(
    st.frozensets(st.integers(0, 65_535), min_size=1, max_size=5),
    st.none() | st.integers(0, 10**9 - 1),
    st.none() | st.integers(1, 10**9 - 1),
)
def test_rules_of_retention_come_back(kinds: frozenset[int], age_s: int | None, newest: int | None) -> None:
    """Every rule can be written."""
    rules = (RetentionRule(kinds, age_s, newest),)
    assert types.RETENTION.read(types.RETENTION.write(rules)) == rules


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
    assert types.RETENTION.read((f"1={text}",))[0].age_s == seconds


def test_keys_and_words_have_one_form() -> None:
    """Keys are hex, and words are case-folded."""
    assert types.KEYS.read((NPUB, KEY)) == {KEY}
    assert types.OPTIONAL_KEY.read((NPUB,)) == KEY
    assert types.OPTIONAL_KEY.read(("",)) == ""
    assert types.WORDS.read(("Straße", "STRASSE")) == {"strasse"}


def test_choices() -> None:
    """Several words may be given, and the one for nothing stands alone."""
    several = types.choices(("a", "b"), "none")
    assert several.read(("a", "b")) == {"a", "b"}
    assert several.read(("none",)) == several.read(()) == frozenset()
    assert several.write(frozenset()) == ("none",)
    assert several.write(frozenset({"b"})) == ("b",)
    for texts in (("c",), ("none", "a"), ("a", "none")):
        with pytest.raises(InvalidValueError):
            several.read(texts)


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("wss://relay.example.com", True),
        ("ws://relay.example.com:8080/nostr", True),
        ("wss://[::1]:8080", True),
        ("wss://", False),
        ("wss://user@relay.example.com", False),
        ("wss://relay.example.com/?x=1", False),
        ("wss://relay.example.com/#x", False),
        ("wss://relay.example.com:0", False),
        ("wss://relay.example.com:port", False),
        ("wss://rélay.example.com", False),
        ("relay.example.com", False),
    ],
)
def test_urls_of_relays(text: str, *, is_right: bool) -> None:
    """A relay's URL has a scheme and a host, and nothing that clients would leave out."""
    assert is_relay_url(text) is is_right
