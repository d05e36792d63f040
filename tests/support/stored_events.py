"""An SQLite store for tests of the read side: filled directly, without the writer, and its queries run to their end."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hypothesis import strategies as st
from tests.support.nostr_filters import A, B, C, events, make_event, matches_slowly

from pyryrelay.nostr.events import Event, canonical
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.reading import Counting, Hint, Scan, ScanLimits
from pyryrelay.nostr.storage.sqlite.deletion import Gone, remove
from pyryrelay.nostr.storage.sqlite.reader import SqliteReader
from pyryrelay.nostr.storage.sqlite.recent.indexing import index_recent
from pyryrelay.nostr.storage.sqlite.schema import SCHEMA, expires, tag_keys
from pyryrelay.nostr.storage.visibility import View, may_see

WALL_S = 1000
EVERYBODY = View(frozenset(), frozenset({4, 1059}), WALL_S)
LIMITS = ScanLimits(max_limit=500, default_limit=500, max_results=None, max_work=None)


@st.composite
def stored_lists(draw: st.DrawFn) -> list[Event]:
    """Return events with different ids, some of which the filters name, and some of which expire."""
    drawn = draw(st.lists(events(), max_size=25))
    ids = draw(st.permutations([A, B, C, *(hashlib.sha256(bytes([n])).hexdigest() for n in range(22))]))
    expiries = draw(st.lists(st.sampled_from([None, None, None, WALL_S, WALL_S + 1]), min_size=25, max_size=25))
    return [
        make_event(
            id=event_id,
            pubkey=event.pubkey,
            created_at=event.created_at,
            kind=event.kind,
            tags=event.tags + ([] if expiry is None else [["expiration", str(expiry)]]),
        )
        for event, event_id, expiry in zip(drawn, ids, expiries, strict=False)
    ]


views = st.builds(
    View,
    keys=st.frozensets(st.sampled_from([A, B])),
    private_kinds=st.just(frozenset({4, 1059})),
    wall_s=st.just(WALL_S),
    hidden_authors=st.frozensets(st.sampled_from([A, C]), max_size=1),
)


def never() -> bool:
    """Give a step all the time it needs."""
    return False


def always() -> bool:
    """Give a step no time at all."""
    return True


class FilledStore:
    """A store, in memory unless a connection to an empty one is given, whose events the test puts in and takes out.

    ``events`` are those in it, by their ``seq``. About half of them, the newest, are not in the indexes.
    """

    def __init__(self, events: Iterable[Event] = (), connection: sqlite3.Connection | None = None) -> None:
        self.connection = connection or sqlite3.connect(":memory:", isolation_level=None)
        if connection is None:
            for statement in SCHEMA:
                self.connection.execute(statement)
        self.reader = SqliteReader(self.connection, Path("memory"))
        self.events: dict[int, Event] = {}
        self.last_seq = 0
        self.add(*events)

    def add(self, *events: Event) -> None:
        """Store events, in this order, and index those before and the first half of them."""
        execute = self.connection.execute
        for number, event in enumerate(events):
            self.last_seq += 1
            seq, event_id = self.last_seq, bytes.fromhex(event.id)
            row = (seq, event_id, bytes.fromhex(event.pubkey), event.kind, event.created_at)
            execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, expires(event), canonical(event).json))
            execute("INSERT INTO recent VALUES (?, ?, ?, ?, ?, ?)", (*row, b"".join(tag_keys(event))))
            self.events[seq] = event
            execute("UPDATE store SET last_seq = ?", (self.last_seq,))
            if number == len(events) // 2:
                index_recent(self.connection)

    def remove(self, seq: int) -> None:
        """Delete an event."""
        remove(self.connection, [Gone(seq, self.events.pop(seq))])

    def scan(self, *filters: Filter, view: View = EVERYBODY, limits: ScanLimits = LIMITS) -> tuple[list[bytes], Hint]:
        """Run a scan to its end, and return its events and its hint."""
        scan = self.reader.scan(filters, view, limits)
        return finish(scan), scan.hint

    def count(self, *filters: Filter, view: View = EVERYBODY, max_count: int = 1000, hll: bool = False) -> Counting:
        """Run a count to its end."""
        counting = self.reader.count(filters, view, max_count, hll)
        while not counting.done:
            counting.step(never)
        return counting


def finish(scan: Scan, is_over: Callable[[], bool] = never, max_bytes: int = 1 << 20) -> list[bytes]:
    """Return the events of a scan that are left."""
    rows = []
    while not scan.done:
        rows += scan.step(is_over, max_bytes)
    return rows


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return events as answers have them: newest first, then the smaller id."""
    return sorted(events, key=lambda event: (-event.created_at, event.id))


def texts(events: Iterable[Event]) -> list[bytes]:
    """Return the canonical JSON of events."""
    return [canonical(event).json for event in events]


def matching(events: Iterable[Event], filter_: Filter, view: View = EVERYBODY) -> list[Event]:
    """Return what a filter matches and a view may see, in order."""
    return in_order(event for event in events if matches_slowly(filter_, event) and may_see(event, view))


def expected(events: Sequence[Event], filters: Sequence[Filter], view: View, limits: ScanLimits) -> list[Event]:
    """Return what a scan of these events has to return, worked out in the most obvious way (spec sections 6 and 7)."""
    found: dict[str, Event] = {}
    for filter_ in filters:
        matched = matching(events, filter_, view)
        limit = min(limits.default_limit if filter_.limit is None else filter_.limit, limits.max_limit)
        own = len(matched) if filter_.limit is None else filter_.limit
        found |= {event.id: event for event in matched[: end_of_second(matched, limit, own)]}
    union = in_order(found.values())
    most = len(union) if limits.max_results is None else limits.max_results
    return union[: end_of_second(union, most, len(union))]


def end_of_second(events: Sequence[Event], cap: int, limit: int) -> int:
    """Return how many events to send: up to ``cap``, and up to 50 more of the second of the last, within ``limit``."""
    end = min(cap, limit, len(events))
    while 0 < end < min(limit, cap + 50, len(events)) and events[end].created_at == events[cap - 1].created_at:
        end += 1
    return end
