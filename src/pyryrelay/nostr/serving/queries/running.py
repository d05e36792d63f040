"""What the scan of a REQ and a COUNT have in common: they wait, run on a reader, and end once.

Times are seconds of the monotonic clock, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.messages import CountMessage, ReqMessage
from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.policies.refusal import Refused
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.nostr.workers.store_readers import QueryHandle
from pyryrelay.nostr.workers.wire import Aborted, CountLimits, Hint, Query

UNLIMITED: Final = 1 << 62

_ABORTED: Final = {
    "expensive": refusal.TOO_EXPENSIVE(),
    "timeout": refusal.TOO_LONG(),
    "error": refusal.NOT_READ(),
}


class Queries(Protocol):
    """The queries of a connection, as one of them sees them."""

    @property
    def relay(self) -> Relay:
        """The relay."""

    @property
    def connection(self) -> Connection:
        """The connection that has asked."""

    def query(self, running: RunningQuery) -> Query:
        """Return what a reader is told of a query."""

    def note_first(self, query: RunningQuery) -> None:
        """Take note that a query has found something, or has ended; again has no effect."""

    def ended(self, query: RunningQuery, work: int, aborted: Aborted) -> None:
        """Take note that a query is over, and charge it."""

    def start_waiting(self) -> None:
        """Start the queries whose turn it is."""

    def count_sent(self, size: int) -> None:
        """Take note of what scans have sent."""

    def refill(self) -> None:
        """Let scans go on if the client reads, or once it does."""

    def close_with(self, id_: str, refused: Refused) -> None:
        """End a subscription, and tell the client why."""


class RunningQuery:
    """A query that waits or runs. Times are seconds of the monotonic clock."""

    __slots__ = (
        "asked_s",
        "filters",
        "handle",
        "has_answered",
        "has_started",
        "id",
        "id_json",
        "max_seq",
        "queries",
        "started_s",
        "timeout_s",
    )

    def __init__(self, queries: Queries, message: ReqMessage | CountMessage) -> None:
        self.queries = queries
        self.id = message.id
        self.id_json = message.id_json
        self.filters: Sequence[Filter] = message.filters
        self.asked_s = queries.relay.now()
        self.started_s = self.asked_s
        self.has_answered = False
        self.has_started = False
        self.max_seq: int | None = None
        """The number of the last event that the query may find; None is any that is stored when it begins."""
        self.timeout_s: float | None = None
        self.handle: QueryHandle | None = None

    def start(self, timeout_s: float | None) -> None:
        """Take note that the query's turn has come."""
        self.has_started = True
        self.timeout_s = timeout_s

    def open(self, credit: int) -> None:
        """Give the query to a reader."""
        query = self.queries.query(self)
        self.filters = ()
        self.started_s = self.queries.relay.now()
        self.handle = self.queries.relay.store.readers.open(query, self, credit)

    def count_limits(self) -> CountLimits | None:
        """Return the limits of a COUNT, None for a REQ."""
        return None

    def refuse(self, refused: Refused) -> None:
        """Tell the client why it gets no answer."""
        raise NotImplementedError

    # See `pyryrelay.nostr.workers.store_readers.QueryListener`.

    def snapshot(self, seq: int) -> None:
        """The query has begun."""

    def rows(self, rows: Sequence[bytes]) -> None:
        """The query has found events."""

    def counted(self, number: int, is_approximate: bool, hll: str | None) -> None:
        """The query has counted events."""

    def done(self, hint: Hint, work: int, aborted: Aborted) -> None:
        """The query has ended."""
        self.handle = None
        self.queries.ended(self, work, aborted)
        if aborted is not None:
            self.refuse(_ABORTED[aborted])
        else:
            self.finish(hint)
        self.queries.start_waiting()

    def finish(self, hint: Hint) -> None:
        """The query has ended at its end."""


def or_unlimited(limit: int | None) -> int:
    """Return a limit, or one that nothing reaches."""
    return UNLIMITED if limit is None else limit
