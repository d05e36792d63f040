"""When events of a store were announced for the first time, roughly, over a long time. PURE.

A mark says that everything up to a number was announced before a time. There are few marks: at most one a minute, and
the older ones are thinned out, so going back to one of them may announce more again than was asked for. Times are whole
seconds of the wall clock, because marks outlive the process.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["MAX_AGAIN", "MAX_MARKS", "Back", "History"]

MARK_S: Final = 60
MAX_MARKS: Final = 240
MAX_AGAIN: Final = 100_000
"""How many numbers to go back at most: more than a server keeps of events of the usual size."""
_MARK: Final = re.compile(r"([0-9]{1,15}):([0-9]{1,18})")


class Back(NamedTuple):
    """Where to go back to. ``since_s`` is the time from which on everything is announced again."""

    seq: int
    since_s: int


class History:
    """The marks. ``text`` is what another process has left behind; without one, nothing was announced before now."""

    def __init__(self, text: str, announced: int, wall_s: int, *, is_first: bool) -> None:
        found = [(int(at_s), int(seq)) for at_s, seq in _MARK.findall(text)]
        self._marks = [mark for mark in found if mark[1] <= announced]
        if not self._marks:
            self._marks = [(0 if is_first else wall_s, announced)]
        self._rewinds = 0

    @property
    def text(self) -> str:
        """The marks, for the next process."""
        return " ".join(f"{at_s}:{seq}" for at_s, seq in self._marks)

    def note(self, announced: int, kept: int, rewinds: int, wall_s: int) -> None:
        """Note how far the announcing has got; see `Progress`. Call it about once a second."""
        if rewinds != self._rewinds:
            self._rewinds = rewinds
            while len(self._marks) > 1 and self._marks[-1][1] > kept:
                self._marks.pop()  # some of this is being announced once more
        last_s, last_seq = self._marks[-1]
        if announced > last_seq and wall_s >= last_s + MARK_S:
            self._marks.append((wall_s, announced))
        if len(self._marks) > MAX_MARKS:
            half = MAX_MARKS // 2
            self._marks = self._marks[:half:2] + self._marks[half:]

    def back_to(self, since_s: int, announced: int, wall_s: int) -> Back:
        """Return where to go back to, so that everything is announced again that was announced since a time.

        If that is too far, or not known, ``since_s`` of it is later.
        """
        oldest = announced - MAX_AGAIN
        found = Back(self._marks[0][1], self._marks[0][0])
        for at_s, seq in self._marks:
            if at_s <= since_s:
                found = Back(seq, since_s)
            elif found.seq < oldest:
                found = Back(seq, at_s)
        return Back(oldest, wall_s) if found.seq < oldest else found
