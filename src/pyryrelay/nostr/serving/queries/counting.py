"""A COUNT: how many events match, stored ones and ephemeral ones in memory."""

from __future__ import annotations

from pyryrelay.nostr.messages import CountMessage, count
from pyryrelay.nostr.policies.refusal import Refused
from pyryrelay.nostr.serving.queries.running import Queries, RunningQuery, or_unlimited
from pyryrelay.nostr.workers.wire import CountLimits, Hint


class Counting(RunningQuery):
    """A COUNT."""

    __slots__ = ("_answer", "_ephemerals", "_hll", "_is_whole")

    def __init__(self, queries: Queries, message: CountMessage) -> None:
        super().__init__(queries, message)
        options = queries.relay.options
        self._hll = options.nostr_hll and len(message.filters) == 1 and bool(message.filters[0].tags)
        self._answer: tuple[int, bool, str | None] = (0, False, None)
        self._ephemerals, self._is_whole = 0, True

    def add_ephemerals(self, number: int, is_whole: bool) -> None:
        """Count events in memory besides the stored ones. ``is_whole`` says that there are no more that match."""
        self._ephemerals, self._is_whole = number, is_whole

    def count_limits(self) -> CountLimits:
        """See `RunningQuery`."""
        limit = self.queries.relay.options.nostr_max_count
        return CountLimits(max_count=or_unlimited(limit), hll=self._hll)

    def counted(self, number: int, is_approximate: bool, hll: str | None) -> None:
        """Remember the result."""
        is_approximate |= not self._is_whole
        self._answer = number + self._ephemerals, is_approximate, None if is_approximate else hll

    def finish(self, hint: Hint) -> None:
        """Send the result."""
        self.queries.note_first(self)
        self.queries.connection.reply([count(self.id_json, *self._answer)])

    def refuse(self, refused: Refused) -> None:
        """Close the count."""
        queries = self.queries
        queries.connection.reply(queries.relay.refuse_query(queries.connection, self.id_json, refused))
