"""Text from outside, made fit for one line of a log, an error or a terminal. PURE."""

from __future__ import annotations

from typing import Final

_LONGEST_QUOTED: Final = 200


def printable(text: str) -> str:
    """`text` with everything that could break the line or command a terminal written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(text: str) -> str:
    """`text` as errors quote it, cut where it is absurdly long."""
    return repr(text if len(text) <= _LONGEST_QUOTED else f"{text[:_LONGEST_QUOTED]}...")
