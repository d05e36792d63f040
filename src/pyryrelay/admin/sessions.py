"""Sessions of browsers that have shown the token. PURE: the random text and the time come in by argument.

A session has a random text of its own, which the browser keeps in a cookie; the relay keeps its hash. Sessions end
after `LIFETIME_S`, at a logout, when the token changes, and with the process. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["LIFETIME_S", "MAX_SESSIONS", "Sessions"]

LIFETIME_S: Final = 12 * 3600.0
MAX_SESSIONS: Final = 64


class Sessions:
    """The open sessions. At most `MAX_SESSIONS`: a new one ends the oldest."""

    def __init__(self) -> None:
        self._ends_s: dict[bytes, float] = {}

    def __len__(self) -> int:
        """Return how many there are, with those that have run out since the last one was opened."""
        return len(self._ends_s)

    def open(self, text: bytes, now: float) -> None:
        """Begin a session with a text of at least 128 random bits."""
        self._ends_s = {key: end_s for key, end_s in self._ends_s.items() if now < end_s}
        while len(self._ends_s) >= MAX_SESSIONS:
            del self._ends_s[next(iter(self._ends_s))]
        self._ends_s[_key(text)] = now + LIFETIME_S

    def holds(self, text: bytes, now: float) -> bool:
        """Return whether a text is that of an open session."""
        # It is looked up by a hash, so that the time says nothing about the text.
        return now < self._ends_s.get(_key(text), now)

    def close(self, text: bytes) -> None:
        """End a session, if there is one with this text."""
        self._ends_s.pop(_key(text), None)

    def close_all(self) -> None:
        """End all sessions."""
        self._ends_s.clear()


def _key(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
