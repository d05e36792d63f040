"""Sets in options: what they refuse, and the one form of each value."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_option_samples import ID, KEY, NPUB

from pyryrelay.config.types import InvalidValueError, OptionType
from pyryrelay.nostr.options.types.sets import ADDRESSES, EVENT_IDS, KEYS, OPTIONAL_KEY, WORDS, choices


@pytest.mark.parametrize(
    ("option_type", "text"),
    [
        (KEYS, KEY[:-1]),
        (KEYS, NPUB[:-1] + "q"),
        (OPTIONAL_KEY, "me"),
        (EVENT_IDS, ID.upper()),
        (EVENT_IDS, ID[:-1]),
        (WORDS, ""),
        (WORDS, "two words"),
        (WORDS, "..."),
        (ADDRESSES, "*:"),
        (ADDRESSES, "30617"),
        (ADDRESSES, f"30617:{KEY}"),
        (ADDRESSES, f"65536:{KEY}:x"),
        (ADDRESSES, f"all:{KEY}:x"),
        (ADDRESSES, "30617:me:x"),
        (ADDRESSES, "me:*"),
    ],
)
def test_what_is_refused(option_type: OptionType[Any], text: str) -> None:
    """A text that does not fit is named, with a problem that follows it."""
    with pytest.raises(InvalidValueError) as caught:
        option_type.read((text,))
    assert caught.value.problem


def test_keys_and_words_have_one_form() -> None:
    """Keys are hex, and words are case-folded."""
    assert KEYS.read((NPUB, KEY)) == {KEY}
    assert OPTIONAL_KEY.read((NPUB,)) == KEY
    assert OPTIONAL_KEY.read(("",)) == ""
    assert WORDS.read(("Straße", "STRASSE")) == {"strasse"}


def test_choices() -> None:
    """Several words may be given, and the one for nothing stands alone."""
    several = choices(("a", "b"), "none")
    assert several.read(("a", "b")) == {"a", "b"}
    assert several.read(("none",)) == several.read(()) == frozenset()
    assert several.write(frozenset()) == ("none",)
    assert several.write(frozenset({"b"})) == ("b",)
    for texts in (("c",), ("none", "a"), ("a", "none")):
        with pytest.raises(InvalidValueError):
            several.read(texts)
