"""Scans: the stored events of a REQ, merged from its filters (spec sections 6 to 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.reading import Hint, ScanLimits
from pyryrelay.nostr.storage.sqlite.queries.entries import Entry, Tables
from pyryrelay.nostr.storage.sqlite.queries.matching import Match, Matches, Viewer
from pyryrelay.nostr.storage.sqlite.queries.merging import Meter, Place
from pyryrelay.nostr.storage.sqlite.queries.planning import plan
from pyryrelay.nostr.storage.visibility import View

__all__ = ["SqliteScan"]

SAME_SECOND: Final = 50
"""How many events more are sent so that a cap does not split a second."""
LOOK_AHEAD: Final = 64
"""How many work units it may cost to find out whether a limit that a client chose has left out anything."""


class _Share:
    """The part of one filter in a scan: its matches, and how many of them may still be taken.

    Attributes:
        left: how many its limit still allows.
        extra: how many more, of the second of the last one, since the relay's cap and not the client's limit ends it.
        place: where its last one was, behind which it can be looked for more.
        is_open: it takes part in the merge.
    """

    __slots__ = ("extra", "is_capped", "is_open", "left", "look_ahead_to", "matches", "place")

    def __init__(self, matches: Matches, limit: int | None, limits: ScanLimits) -> None:
        self.matches = matches
        if limit is None:
            self.left, self.extra = min(limits.default_limit, limits.max_limit), SAME_SECOND
        else:
            self.left = min(limit, limits.max_limit)
            self.extra = min(limit - self.left, SAME_SECOND)
        self.is_capped = self.extra > 0
        self.is_open = self.left > 0
        self.place: Place | None = None
        self.look_ahead_to: int | None = None if self.is_open else -1

    def take(self, place: Place) -> bool:
        """Take the first match, which is at ``place``, unless the limit is reached."""
        if self.left > 0:
            self.left -= 1
        elif self.place is not None and place[0] == self.place[0]:
            self.extra -= 1
        else:
            self.is_open = False
            return False
        self.matches.ready.popleft()
        self.place = place
        self.is_open = self.left > 0 or self.extra > 0
        return True

    def skip_to(self, place: Place, count: int) -> None:
        """Take note of matches that were taken, up to a place; no more than ``left``."""
        self.left -= count
        self.place = place
        self.is_open = self.left > 0 or self.extra > 0


class SqliteScan:
    """A scan of an SQLite store; see ``reading.Scan``. Make one with ``SqliteReader.scan``."""

    def __init__(
        self, tables: Tables, filters: Sequence[Filter], view: View, limits: ScanLimits, snapshot: int
    ) -> None:
        self.snapshot = snapshot
        self.done = False
        self.hint: Hint = None
        self.over_work = False
        self._tables = tables
        self._meter = Meter(limits.max_work)
        self._viewer = viewer = Viewer(view, snapshot)
        self._shares = [
            _Share(
                Matches(tables, filter_, plan(filter_, viewer.unseen_kinds), viewer, self._meter), filter_.limit, limits
            )
            for filter_ in filters
        ]
        self._left = limits.max_results
        self._extra = SAME_SECOND
        self._sent: set[int] = set()  # only used to see what one filter has found and another one sent
        self._last_second = -1

    @property
    def work(self) -> int:
        """The work units used up to now."""
        return self._meter.work

    def step(self, is_over: Callable[[], bool], max_bytes: int) -> list[bytes]:
        """Return the next events; see ``reading.Scan``."""
        rows: list[bytes] = []
        with self._tables.reading():
            while not self.done:
                matched = self._next(max_bytes, is_over)
                if matched is None or (rows and len(matched[1]) > max_bytes):
                    break
                if self._take(matched[0]):
                    rows.append(matched[1])
                    max_bytes -= len(matched[1])
                    if len(self._shares) == 1:
                        max_bytes = self._take_ready(rows, max_bytes)
        for share in self._shares:
            share.matches.unload()
        return rows

    def look_at(self, wall_s: int) -> None:
        """See ``reading.Scan``."""
        if wall_s != self._viewer.view.wall_s:
            self._viewer.view = replace(self._viewer.view, wall_s=wall_s)

    def pause(self) -> None:
        """Free memory; see ``reading.Scan``."""
        for share in self._shares:
            share.matches.release()

    def _next(self, room: int, is_over: Callable[[], bool]) -> Match | None:
        """Return the first match of all filters, or None if the scan ends or the step does."""
        first: Match | None = None
        shares = [share for share in self._shares if share.is_open]
        for share in shares:
            matches = share.matches
            if not matches.ready:
                matches.advance(share.left + 1, room // len(shares), is_over, share.place)
            if matches.ready:
                if first is None or matches.ready[0][0] < first[0]:
                    first = matches.ready[0]
            elif matches.is_exhausted:
                share.is_open = False
            else:
                if self._meter.is_exceeded():
                    self.over_work = True
                    self._end("more")
                return None
        if first is None:
            self._settle(is_over)
        return first

    def _take(self, entry: Entry) -> bool:
        """Take an event from all filters that match it, and tell whether it is to be sent."""
        place = (-entry[0], entry[1])
        if self._left is not None and self._left <= 0:
            if place[0] != self._last_second or self._extra <= 0:
                self._end("more")
                return False
            self._extra -= 1
        is_taken = False
        for share in self._shares:
            ready = share.matches.ready
            if share.is_open and ready and ready[0][0][2] == entry[2]:
                is_taken |= share.take(place)
        if is_taken:
            if len(self._shares) > 1:
                self._sent.add(entry[2])
            self._last_second = place[0]
            if self._left is not None:
                self._left -= 1
        return is_taken

    def _take_ready(self, rows: list[bytes], room: int) -> int:
        """Take what the only filter has ready, up to the first limit, and return the room that is left.

        This does the same as `_next` and `_take`, in a tenth of the time.
        """
        share = self._shares[0]
        ready = share.matches.ready
        left = share.left if self._left is None else min(share.left, self._left)
        first = len(rows)
        entry: Entry | None = None
        while left > 0 and ready and len(ready[0][1]) <= room:
            entry, json = ready.popleft()
            rows.append(json)
            room -= len(json)
            left -= 1
        if entry is not None:
            taken = len(rows) - first
            share.skip_to((-entry[0], entry[1]), taken)
            self._last_second = -entry[0]
            if self._left is not None:
                self._left -= taken
        return room

    def _settle(self, is_over: Callable[[], bool]) -> None:
        """End the scan, of which everything is sent, with what is known of further matches."""
        is_known = True
        for share in self._shares:
            if share.matches.is_exhausted and not share.matches.ready:
                continue
            found = self._look_ahead(share, is_over)
            if found is None:
                return
            if found == "more":
                self._end("more")
                return
            is_known &= found == "none"
        self._end("finish" if is_known else None)

    def _look_ahead(self, share: _Share, is_over: Callable[[], bool]) -> Literal["more", "none", "unknown"] | None:
        """Look for a match of a filter that was not sent because of its limit; None if the step ended before."""
        meter, matches = self._meter, share.matches
        if share.look_ahead_to is None:
            share.look_ahead_to = meter.work + LOOK_AHEAD
        end = None if share.is_capped else share.look_ahead_to
        while not self._drop_sent(share):
            if matches.is_exhausted:
                return "none"
            if meter.is_exceeded() or (end is not None and meter.work > end):
                return "more" if share.is_capped else "unknown"
            matches.advance(1, 0, lambda: is_over() or (end is not None and meter.work > end), share.place)
            if is_over() and not matches.ready and not matches.is_exhausted:
                return None
        return "more"

    def _drop_sent(self, share: _Share) -> bool:
        """Drop the matches at hand that other filters had sent, and tell whether one is left."""
        ready = share.matches.ready
        while ready and ready[0][0][2] in self._sent:
            entry, _ = ready.popleft()
            share.place = (-entry[0], entry[1])
        return bool(ready)

    def _end(self, hint: Hint) -> None:
        self.done = True
        self.hint = hint
        self.pause()
