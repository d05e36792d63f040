"""Text from outside in one line: escaped, quoted and cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.text import printable, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text, \xe9 and \u65e5", "plain text, \xe9 and \u65e5"),
        ("a\tb\u2028\udc80c", r"a\tb\u2028\udc80c"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202e\U000e0001", r"\u202e\U000e0001"),
        (r"a\nb", r"a\nb"),
    ],
)
def test_unprintable_characters_are_escaped(text: str, shown: str) -> None:
    """Characters that break a line, control a terminal or change its direction are escaped; others are kept."""
    assert printable(text) == shown


@given(st.text())
def test_any_text_becomes_printable(text: str) -> None:
    """The result is one printable line, and printable text is unchanged."""
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", "'a'"),
        ("it's", '"it\'s"'),
        ("a\nb", r"'a\nb'"),
        ("x" * 200, f"'{'x' * 200}'"),
        ("x" * 201, f"'{'x' * 200}...'"),
    ],
)
def test_errors_quote_at_most_200_characters(text: str, shown: str) -> None:
    """A quoted text has quotes and escapes, and is cut after 200 characters."""
    assert quoted(text) == shown
