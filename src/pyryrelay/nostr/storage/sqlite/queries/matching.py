"""The stored events of one filter that a view may see, in the order of answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from pyryrelay.nostr.events import stored_event
from pyryrelay.nostr.filters import Filter, Matcher
from pyryrelay.nostr.storage.sqlite.queries.entries import UNKNOWN_KIND, Entry, Row, Tables
from pyryrelay.nostr.storage.sqlite.queries.merging import Meter, Place, merge
from pyryrelay.nostr.storage.sqlite.queries.planning import Index, Plan
from pyryrelay.nostr.storage.visibility import View, may_see

__all__ = ["Match", "Matches", "Viewer"]

FEWEST_LOADED: Final = 8
MOST_LOADED: Final = 128
"""How many events are loaded by one statement, unless their size ends it earlier."""
USUAL_BYTES: Final = 512
"""How large an event is thought to be before any was loaded."""
MOST_LOADED_BYTES: Final = 256 * 1024
"""How large events may be together that are loaded without a look at the clock, matching or not."""

Match = tuple[Entry, bytes]
"""An entry and the canonical JSON; no bytes where the index was enough."""


class Viewer:
    """What decides whether a stored event may be shown.

    Args:
        snapshot: the highest ``seq`` that is shown.
    """

    def __init__(self, view: View, snapshot: int) -> None:
        self.view = view
        self.snapshot = snapshot
        self.unseen_kinds = frozenset() if view.keys else view.private_kinds
        """The kinds of which nothing can be shown."""
        self.undecided_kinds = view.private_kinds | {UNKNOWN_KIND}
        """The kinds of entries whose events have to be looked at."""
        self._hidden = frozenset(bytes.fromhex(author) for author in view.hidden_authors)

    def shows(self, row: Row) -> bool:
        """Tell whether a loaded event may be shown; it is only parsed if its kind is private."""
        _, pubkey, kind, expires, json = row
        if kind in self.view.private_kinds:
            return kind not in self.unseen_kinds and may_see(stored_event(json), self.view)
        return (expires is None or expires > self.view.wall_s) and pubkey not in self._hidden


class Matches:
    """The events of one filter: candidates from its index, of which those that match and may be seen are ready.

    Args:
        expired: the numbers of all expired events. If given, an entry of the index is a match without its event where
            the plan says so; the JSON of such a match is empty.
    """

    __slots__ = (
        "_batch",
        "_candidates",
        "_expired",
        "_kinds",
        "_last",
        "_matcher",
        "_meter",
        "_passed",
        "_plan",
        "_source",
        "_tables",
        "_usual_bytes",
        "_viewer",
        "is_exhausted",
        "ready",
    )

    def __init__(
        self,
        tables: Tables,
        filter_: Filter,
        plan: Plan | None,
        viewer: Viewer,
        meter: Meter,
        expired: frozenset[int] | None = None,
    ) -> None:
        self._tables = tables
        self._plan = plan
        self._kinds = None if plan is None else plan.kinds
        self._viewer = viewer
        self._meter = meter
        self._expired = expired
        # Different values may share a key of the index of tags.
        is_decided = plan is None or (plan.is_exact and plan.index is not Index.TAGS)
        self._matcher = None if is_decided else Matcher.of(filter_)
        self._source: Iterator[Entry | None] | None = None
        self._candidates: deque[Entry] = deque()
        self._last: Entry | None = None  # the last one that the source has given
        self._passed: Entry | None = None  # one before all candidates, behind which to look again after a release
        self._batch = FEWEST_LOADED
        self._usual_bytes = USUAL_BYTES
        self.ready: deque[Match] = deque()
        self.is_exhausted = plan is None

    def advance(self, wanted: int, room: int, is_over: Callable[[], bool], after: Place | None = None) -> None:
        """Look for matches until some are ready, there are none left, ``is_over``, or the work is used up.

        Args:
            wanted: how many matches are needed at most.
            room: how many bytes of events are needed at most; one event more may be loaded.
            after: where to begin if nothing is at hand.
        """
        while not self.ready and not self.is_exhausted and not self._meter.is_exceeded():
            enough = min(max(wanted, self._batch), MOST_LOADED)
            if self._matcher is None:
                # Nearly all of them match, and what is loaded beyond the room is loaded again by the next step.
                enough = min(enough, max(room // self._usual_bytes + 1, FEWEST_LOADED))
            if len(self._candidates) < enough:
                if self._source is None:
                    self._source = self._begin(after, wanted)
                is_at_end = self._collect(self._source, enough, is_over)
                if not is_at_end and (self._meter.is_exceeded() or is_over()):
                    return
                if not self._candidates:
                    self.is_exhausted = is_at_end
                    continue
            self._judge(enough, room)
            if not self.ready:
                self._batch *= 2
                if is_over():
                    return

    def unload(self) -> None:
        """Forget the events that were loaded, as they may be deleted before the next step; keep their entries."""
        self._candidates.extendleft(entry for entry, _ in reversed(self.ready))
        self.ready.clear()

    def release(self) -> None:
        """Forget everything but the question and the place."""
        if self._last is not None and not self.ready and not self._candidates:
            self._passed = self._last
        self.ready.clear()
        self._candidates.clear()
        self._source = None

    def _begin(self, after: Place | None, wanted: int) -> Iterator[Entry | None]:
        if self._plan is None:
            return iter(())
        passed = self._passed
        if passed is not None and (after is None or passed[:2] > (-after[0], after[1])):
            after = -passed[0], passed[1]
        return merge(self._tables, self._plan, wanted, after, self._meter)

    def _collect(self, source: Iterator[Entry | None], enough: int, is_over: Callable[[], bool]) -> bool:
        """Take entries that may match, until there are enough; true if there are no more."""
        kinds = self._kinds
        unseen, snapshot = self._viewer.unseen_kinds, self._viewer.snapshot
        candidates, meter = self._candidates, self._meter
        for entry in source:
            if entry is None:
                if meter.is_exceeded() or is_over():
                    return False
                continue
            self._last = entry
            kind = entry[3]
            if entry[2] > snapshot or kind in unseen or not (kinds is None or kind in kinds):
                continue
            candidates.append(entry)
            if len(candidates) >= enough:
                return False
        return True

    def _judge(self, count: int, room: int) -> None:
        """Turn up to ``count`` candidates into matches, or drop them."""
        candidates = self._candidates
        chosen = [candidates.popleft() for _ in range(min(count, len(candidates)))]
        expired = self._expired
        if expired is not None and not any(entry[3] in self._viewer.undecided_kinds for entry in chosen):
            self.ready.extend((entry, b"") for entry in chosen if entry[2] not in expired)
            return
        entries = {entry[2]: entry for entry in chosen}
        last, most = len(chosen), MOST_LOADED_BYTES
        matcher, shows, ready, usual_bytes = self._matcher, self._viewer.shows, self.ready, self._usual_bytes
        loaded = 0
        for row in self._tables.load(list(entries)):
            loaded += 1
            json = row[4]
            size = len(json)
            most -= size
            if shows(row) and (matcher is None or matcher(stored_event(json))):
                ready.append((entries[row[0]], json))
                room -= size
                usual_bytes += (size - usual_bytes) // 8
                most = min(most, room)
            if most <= 0:
                last = chosen.index(entries[row[0]]) + 1
                break
        self._usual_bytes = usual_bytes
        self._meter.work += loaded
        candidates.extendleft(reversed(chosen[last:]))
        judged = chosen[:last]
        passed = judged.index(self.ready[0][0]) if self.ready else last
        if passed:
            self._passed = judged[passed - 1]
