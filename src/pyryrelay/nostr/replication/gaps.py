"""What may have been lost on a server before it was read here: this host asks the others for it, and answers them.

A host that is cut off from a server while that loses its entries does not know what it has missed. It says since when,
and all others announce again what they have announced since then, whoever had announced it first. That is asked again
each time that a server has lost entries within `ASKED_S`, because the question may be lost as well. A host that cannot
go back so far says so, and who asked counts that as missed.

Times are whole seconds of the wall clock, so this outlives the process; ``_s`` of others are durations.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil
from typing import Any, Final, Protocol

from pyryrelay.broadcast import Broadcast, BroadcastError
from pyryrelay.nostr.replication.entries import AGAIN, ONLY, Wish, wish_body
from pyryrelay.nostr.replication.history import History
from pyryrelay.nostr.replication.outbox import Outbox
from pyryrelay.nostr.replication.totals import Totals

__all__ = ["ASKED_S", "CALM_S", "SURE_S", "Gaps", "Log"]

SURE_S: Final = 50.0
"""What others have announced in so many seconds before a server lost it they announce again unasked."""
ASKED_S: Final = 3600
"""How long a question is repeated when a server has lost entries."""
CALM_S: Final = 10
"""How often others are answered at most, as they may all ask at once. Each answer is ended before the next begins."""
MARGIN_S: Final = 15
"""By how much clocks may be wrong."""
_KEPT: Final = re.compile(r"([0-9]{1,15}) ([0-9]{1,15})")


class Log(Protocol):
    """Where it is reported what was lost."""

    def asking_again(self, seconds: int) -> None:
        """Log that others are asked for the events of so many seconds."""

    def announcing_once_more(self, count: int) -> None:
        """Log that so many numbers of events are announced again because another host asked for them."""

    def events_missed(self) -> None:
        """Log that events of other hosts are missing here, and that no host announces them again."""


class Gaps:
    """Asks and answers. ``kept`` is what another process has left behind, see `text`; ``wall_s`` is the wall clock."""

    def __init__(
        self,
        broadcast: Broadcast,
        outbox: Outbox,
        history: History,
        wall_s: Callable[[], int],
        totals: Totals,
        log: Log,
        kept: str = "",
    ) -> None:
        self._broadcast = broadcast
        self._outbox = outbox
        self._history = history
        self._wall_s = wall_s
        self._totals = totals
        self._report = log
        known = _KEPT.fullmatch(kept)
        self._since_s, self._until_s = map(int, known.groups()) if known else (0, 0)
        """Since when events may be missing, and until when others are asked for them; (0, 0) if none are."""
        self._is_owed = self._is_asking = False
        self._wanted_s: int | None = None
        """Since when others want events again; None if they want none."""
        self._answered_s = -CALM_S
        self._answering = 0
        """The number up to which the last answer goes. The next one has to wait until then, so that whoever repeats
        questions does not keep others from hearing the rest."""

    @property
    def text(self) -> str:
        """What the next process has to know."""
        return f"{self._since_s} {self._until_s}" if self._until_s else ""

    def lost(self, since_s: float) -> None:
        """Note that a server has lost entries, of which all were read here that were added before so many seconds."""
        wall_s = self._wall_s()
        if since_s > SURE_S:
            gap_s = max(0, wall_s - ceil(min(since_s, wall_s)))
            self._since_s = min(gap_s, self._since_s) if self._until_s else gap_s
            self._until_s = wall_s + ASKED_S
        self._is_owed = self._until_s > wall_s
        self.ask()

    def ask(self) -> None:
        """Ask others for what may be missing here, if that is to be done."""
        if not self._is_owed or self._is_asking:
            return
        self._is_owed, self._is_asking = False, True
        seconds = max(0, self._wall_s() - self._since_s)
        body = wish_body(AGAIN, seconds)
        self._broadcast.add(body, body).addCallbacks(self._asked, self._not_asked, callbackArgs=(seconds,))

    def _asked(self, ignored: object, seconds: int) -> None:
        self._is_asking = False
        self._totals.asked_again += 1
        self._report.asking_again(seconds)
        self.ask()

    def _not_asked(self, failure: Any) -> None:
        self._is_asking, self._is_owed = False, True
        failure.trap(BroadcastError)

    def heard(self, wish: Wish, age_s: float) -> None:
        """Note what another host wants, or cannot do; it said so that long ago."""
        since_s = max(0, self._wall_s() - ceil(age_s) - wish.seconds)
        if not wish.is_answer:
            since_s = max(0, since_s - MARGIN_S)
            self._wanted_s = since_s if self._wanted_s is None else min(since_s, self._wanted_s)
            self.tick()
        elif self._until_s and since_s > self._since_s + MARGIN_S:
            self._since_s = self._until_s = 0
            self._totals.missed += 1
            self._report.events_missed()

    def tick(self) -> None:
        """Do what is due. Call it once a second."""
        wall_s, progress = self._wall_s(), self._outbox.progress
        self._history.note(progress.announced, progress.kept, progress.rewinds, wall_s, progress.top)
        if self._until_s and wall_s > self._until_s:
            self._since_s = self._until_s = 0
            self._is_owed = False
        self.ask()
        is_calm = progress.announced >= self._answering and not 0 <= wall_s - self._answered_s < CALM_S
        if self._wanted_s is not None and is_calm:
            self._answer(self._wanted_s, wall_s)
            self._wanted_s, self._answered_s = None, wall_s

    def _answer(self, wanted_s: int, wall_s: int) -> None:
        """Announce again what others want, as far as that is possible."""
        progress = self._outbox.progress
        back = self._history.back_to(wanted_s, progress.announced, wall_s)
        if back.since_s > wanted_s:
            body = wish_body(ONLY, max(0, wall_s - back.since_s))
            self._broadcast.add(body, body).addErrback(lambda failure: failure.trap(BroadcastError))
        before, self._answering = progress.waiting, progress.announced
        self._outbox.again(back.seq)
        if progress.waiting > before:
            self._report.announcing_once_more(progress.waiting - before)
