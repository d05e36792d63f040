"""What a server did not keep until it was read here: this host asks the others for it, once.

A server keeps the newest entries, so a host that was away for long finds that older ones are gone. It takes in what is
left, and then asks for what was added in between; see `Answers` for how the others announce it again. Many hosts may
have been away together, so each waits for a random time, and one that hears another's question which covers its own
does not ask. A host asks once in `CALM_S` at most, and not again for what it may have missed of an answer: it counts
that as missed, and what nobody has announced again in `GIVEN_S`.

Times are whole seconds of the wall clock, so this outlives the process; ``_s`` of others are durations.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil
from typing import Any, Final, Protocol

from pyryrelay.broadcast import Broadcast, BroadcastError
from pyryrelay.nostr.replication.entries import AGAIN, Wish, wish_body
from pyryrelay.nostr.replication.history import Span
from pyryrelay.nostr.replication.totals import Totals

__all__ = ["CALM_S", "GIVEN_S", "MARGIN_S", "SPREAD_S", "Log", "Trimmed", "span_of"]

CALM_S: Final = 600
"""How often a host asks at most."""
SPREAD_S: Final = 5
"""By how much the questions of hosts that come back together differ."""
GIVEN_S: Final = 900
"""How long to wait for the end of an answer."""
MARGIN_S: Final = 15
"""By how much clocks may be wrong."""
SAME_S: Final = 5
"""By how much two hosts may differ about when something was."""
_KEPT: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,15}) ([0-9]{1,15})")


class Log(Protocol):
    """Where it is reported what was not kept."""

    def asking_for_trimmed(self, seconds: int, until: int) -> None:
        """Log that others are asked for the events that were announced between so many seconds ago."""

    def trimmed_given(self) -> None:
        """Log that another host has announced all of them again."""

    def events_missed(self) -> None:
        """Log that events of other hosts are missing here, and that no host has announced them again."""


def span_of(wish: Wish, age_s: float, wall_s: int) -> Span:
    """Return the span that a wish with two numbers is about; somebody said so that long ago."""
    said_s = wall_s - ceil(age_s)
    return Span(max(0, said_s - wish.seconds), max(0, said_s - (wish.until or 0)))


class Trimmed:
    """Asks. ``kept`` is what another process has left behind, see `text`; ``chance`` returns a number from 0 to 1."""

    def __init__(
        self,
        broadcast: Broadcast,
        wall_s: Callable[[], int],
        chance: Callable[[], float],
        totals: Totals,
        log: Log,
        kept: str = "",
    ) -> None:
        self._broadcast = broadcast
        self._wall_s = wall_s
        self._chance = chance
        self._totals = totals
        self._report = log
        known = _KEPT.fullmatch(kept)
        since_s, until_s, asked_s = map(int, known.groups()) if known else (0, 0, 0)
        self._span = Span(since_s, until_s) if known else None
        """What is missing here, as long as nobody has announced it again."""
        self._asked_s = asked_s
        """When somebody has asked for that; 0 if nobody has."""
        self._last_s = asked_s or None
        """When this host has asked last, or heard another that has asked for the same."""
        self._due_s: int | None = None
        self._is_asking = False

    @property
    def text(self) -> str:
        """What the next process has to know."""
        return "" if self._span is None else f"{self._span.text} {self._asked_s}"

    def lacks(self, span: Span) -> bool:
        """Tell whether anything of a span is missing here."""
        own = self._span
        return own is not None and own.since_s <= span.until_s and span.since_s <= own.until_s

    def missed(self, since_s: float, until_s: float) -> None:
        """Note that a server did not keep what was added between so many seconds ago."""
        wall_s = self._wall_s()
        gap = Span(max(0, wall_s - ceil(min(since_s, wall_s))), max(0, wall_s - int(min(until_s, wall_s))))
        if self._span is not None:
            if self._asked_s:
                self._give_up()
            else:
                gap = gap.joined(self._span)
        self._span, self._asked_s = gap, 0

    def lost(self) -> None:
        """Note that a server has lost entries: perhaps the question, or a part of the answer. It is asked again."""
        self._asked_s = 0

    def heard(self, wish: Wish, age_s: float) -> None:
        """Note another host's question, or the end of its answer."""
        if self._span is None:
            return
        wall_s = self._wall_s()
        about = span_of(wish, age_s, wall_s)
        if wish.is_answer:
            if self._asked_s and about.wider(SAME_S).covers(self._span):
                self._span, self._asked_s = None, 0
                self._report.trimmed_given()
        elif not self._asked_s and about.wider(SAME_S).covers(self._span) and wall_s - age_s >= self._span.until_s:
            self._is_asked(wall_s)

    def tick(self, *, is_behind: bool) -> None:
        """Do what is due; ``is_behind`` tells that there is more to read. Call it once a second."""
        span, wall_s = self._span, self._wall_s()
        if span is None:
            return
        if self._asked_s:
            if not -MARGIN_S <= wall_s - self._asked_s < GIVEN_S:
                self._span, self._asked_s = None, 0
                self._give_up()
            return
        is_calm = self._last_s is None or not 0 <= wall_s - self._last_s < CALM_S
        if is_behind or not is_calm:
            self._due_s = None
        elif self._due_s is None:
            self._due_s = wall_s + round(self._chance() * SPREAD_S)
        elif wall_s >= self._due_s and not self._is_asking:
            self._ask(span, wall_s)

    def _ask(self, span: Span, wall_s: int) -> None:
        self._is_asking = True
        seconds, until = max(0, wall_s - span.since_s), max(0, wall_s - span.until_s)
        body = wish_body(AGAIN, seconds, until)
        asking = self._broadcast.add(body, body)
        asking.addCallbacks(self._asked, self._not_asked, callbackArgs=(span, seconds, until))

    def _asked(self, ignored: object, span: Span, seconds: int, until: int) -> None:
        self._is_asking = False
        self._totals.asked_again += 1
        self._report.asking_for_trimmed(seconds, until)
        if span == self._span:
            self._is_asked(self._wall_s())

    def _not_asked(self, failure: Any) -> None:
        self._is_asking = False
        failure.trap(BroadcastError)

    def _is_asked(self, wall_s: int) -> None:
        self._asked_s = self._last_s = wall_s
        self._due_s = None

    def _give_up(self) -> None:
        self._totals.missed += 1
        self._report.events_missed()
