"""When events of a store were announced for the first time, roughly, over a long time. PURE.

A mark says that everything up to a number was announced before a time, and that nothing above another number was. There
are few marks: at most one a minute, and the older ones are thinned out, so going back to one of them may announce more
again than was asked for. Times are whole seconds of the wall clock, because marks outlive the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["MAX_AGAIN", "MAX_MARKS", "Back", "History", "Part", "Span", "joined", "spans_in"]

MARK_S: Final = 60
MAX_MARKS: Final = 240
MAX_AGAIN: Final = 100_000
"""How many numbers to announce again at most: more than a server keeps of events of the usual size."""
_MARK: Final = re.compile(r"([0-9]{1,15}):([0-9]{1,18})(?::([0-9]{1,18}))?")


_SPAN: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,15})")


class Span(NamedTuple):
    """From a time to another one."""

    since_s: int
    until_s: int

    def wider(self, by_s: int) -> Span:
        """Return a span that begins earlier and ends later."""
        return Span(max(0, self.since_s - by_s), self.until_s + by_s)

    def covers(self, other: Span) -> bool:
        """Tell whether another span is within this one."""
        return self.since_s <= other.since_s and other.until_s <= self.until_s

    def joined(self, other: Span) -> Span:
        """Return the shortest span that covers both."""
        return Span(min(self.since_s, other.since_s), max(self.until_s, other.until_s))

    @property
    def text(self) -> str:
        """The span, for the next process."""
        return f"{self.since_s}-{self.until_s}"


def spans_in(text: str) -> list[Span]:
    """Return the spans that another process has left behind."""
    return [Span(int(since_s), int(until_s)) for since_s, until_s in _SPAN.findall(text)]


def joined(spans: Iterable[Span], new: Span, most: int) -> list[Span]:
    """Return spans with another one, joined where they meet, and at most so many: the last ones become one."""
    found: list[Span] = []
    for span in spans:
        if span.since_s <= new.until_s and new.since_s <= span.until_s:
            new = new.joined(span)
        else:
            found.append(span)
    found.append(new)
    while len(found) > most:
        last = found.pop()
        found[-1] = found[-1].joined(last)
    return found


class Back(NamedTuple):
    """Where to go back to. ``since_s`` is the time from which on everything is announced again."""

    seq: int
    since_s: int


class Part(NamedTuple):
    """Numbers above ``first``, up to ``last``. All that was announced in a span from ``since_s`` on is among them."""

    first: int
    last: int
    since_s: int


class _Mark(NamedTuple):
    at_s: int
    seq: int
    top: int


class History:
    """The marks. ``text`` is what another process has left behind; without one, nothing was announced before now."""

    def __init__(self, text: str, announced: int, wall_s: int, *, is_first: bool) -> None:
        found = [_Mark(int(at_s), int(seq), int(top or seq)) for at_s, seq, top in _MARK.findall(text)]
        self._marks = [mark for mark in found if mark.seq <= announced]
        if not self._marks:
            self._marks = [_Mark(0 if is_first else wall_s, announced, announced)]
        self._rewinds = 0

    @property
    def text(self) -> str:
        """The marks, for the next process."""
        return " ".join(f"{at_s}:{seq}" + (f":{top}" if top > seq else "") for at_s, seq, top in self._marks)

    def note(self, announced: int, kept: int, rewinds: int, wall_s: int, top: int = 0) -> None:
        """Note how far the announcing has got; see `Progress`. Call it about once a second."""
        if rewinds != self._rewinds:
            self._rewinds = rewinds
            while len(self._marks) > 1 and self._marks[-1].seq > kept:
                self._marks.pop()  # some of this is being announced once more
        last = self._marks[-1]
        top = max(announced, top, last.top)
        if (announced > last.seq or top > last.top) and wall_s >= last.at_s + MARK_S:
            self._marks.append(_Mark(wall_s, announced, top))
        if len(self._marks) > MAX_MARKS:
            half = MAX_MARKS // 2
            self._marks = self._marks[:half:2] + self._marks[half:]

    def back_to(self, since_s: int, announced: int, wall_s: int) -> Back:
        """Return where to go back to, so that everything is announced again that was announced since a time.

        If that is too far, or not known, ``since_s`` of it is later.
        """
        oldest = announced - MAX_AGAIN
        found = Back(self._marks[0].seq, self._marks[0].at_s)
        for at_s, seq, _ in self._marks:
            if at_s <= since_s:
                found = Back(seq, since_s)
            elif found.seq < oldest:
                found = Back(seq, at_s)
        return Back(oldest, wall_s) if found.seq < oldest else found

    def between(self, span: Span, top: int) -> Part:
        """Return what to announce again, so that all is among it that was announced in a span.

        ``top`` is that of `Progress` now. If that is too much, or not known, ``since_s`` of it is later.
        """
        last = next((mark.top for mark in self._marks if mark.at_s >= span.until_s), top)
        back = self.back_to(span.since_s, last, span.until_s)
        first = back.seq
        if back.since_s > span.since_s:  # the newest of it
            first = max(self._marks[0].seq, last - MAX_AGAIN)
        return Part(first, last, back.since_s)
