"""Make text from outside safe for one line of a log, an error or a terminal. PURE."""

from __future__ import annotations

from typing import Final

_LONGEST_QUOTED: Final = 200


def printable(text: str) -> str:
    """Return `text` with escapes for all characters that could end the line or control a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(text: str) -> str:
    """Return `text` quoted for an error message, cut off if it is very long."""
    return repr(text if len(text) <= _LONGEST_QUOTED else f"{text[:_LONGEST_QUOTED]}...")
