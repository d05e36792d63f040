"""Texts in options: which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from pyryrelay.config.types import InvalidValueError, OptionType
from pyryrelay.nostr.options.types.texts import DATABASE, FEES, PATH, RELAY_URL, TEXT, is_relay_url


@pytest.mark.parametrize(
    ("option_type", "text"),
    [
        (TEXT, "x" * 10_001),
        (PATH, "nostr"),
        (PATH, "/a?b"),
        (RELAY_URL, "https://relay.example.com"),
        (DATABASE, "sqlite:"),
        (DATABASE, "postgresql://localhost"),
        (FEES, "[]"),
        (FEES, "{"),
        (FEES, "[" * 100_000),
    ],
)
def test_what_is_refused(option_type: OptionType[Any], text: str) -> None:
    """A text that does not fit is named, with a problem that follows it."""
    with pytest.raises(InvalidValueError) as caught:
        option_type.read((text,))
    assert caught.value.problem


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
