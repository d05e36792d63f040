"""The ``Date`` of answers (RFC 9110 section 6.6.1).

There are few different answers, and one date in a second. So dated answers are kept until the second is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

__all__ = ["MAX_KEPT", "Dates"]

MAX_KEPT: Final = 1024
"""Dated answers that are kept within a second."""


class Dates:
    """Puts the date into answers. ``clock`` is the wall clock, in seconds."""

    __slots__ = ("_clock", "_dated", "_field", "_second")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._field = b""
        self._dated: dict[bytes, bytes] = {}

    def __call__(self, answer: bytes) -> bytes:
        """Return the answer, or its head, with the date behind its status line; an empty one stays empty."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._field = b"\r\nDate: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")
            self._dated.clear()
        dated = self._dated.get(answer)
        if dated is None:
            if len(self._dated) >= MAX_KEPT:
                self._dated.clear()
            dated = self._dated[answer] = answer.replace(b"\r\n", self._field, 1)
        return dated
