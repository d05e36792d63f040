"""One open subscription: what live delivery and scans know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.messages import event_before
from pyryrelay.nostr.serving.connection import Connection
from pyryrelay.nostr.serving.outgoing import OVERHEAD_BYTES, Stream

NOT_STORED: Final = 1 << 62
"""The number of an ephemeral event: later than any snapshot."""


class Live(NamedTuple):
    """An event to deliver; ``seq`` is its number in the store, ``expires_s`` the unix time of its expiration."""

    event: Event
    json: bytes
    seq: int
    is_private: bool
    expires_s: int | None


class Subscription(Stream):
    """A subscription. While its scan runs, live events are kept in ``held``; see `hold` and `settle`.

    ``snapshot`` is the number of the last stored event that the scan may have sent: an event is live for this
    subscription only if its number is higher. Without a scan, it is that of the last event before the REQ.
    """

    __slots__ = ("_held_bytes", "connection", "held", "id_json", "is_open", "snapshot", "values")

    def __init__(self, connection: Connection, id_json: bytes, values: int = 0) -> None:
        """``values`` is how many values its filters have together."""
        super().__init__(event_before(id_json))
        self.connection = connection
        self.id_json = id_json
        self.values = values
        self.is_open = True
        self.snapshot = 0
        self.held: list[Live] | None = None
        self._held_bytes = 0

    def hold(self, lives: Sequence[Live]) -> None:
        """Keep live events while the scan runs. They count for the outbox, which may close the connection."""
        if self.held is not None:
            self.held.extend(lives)
            size = sum(len(live.json) + OVERHEAD_BYTES for live in lives)
            self._held_bytes += size
            self.connection.outgoing.hold(size)

    def settle(self) -> list[Live]:
        """End the scan: return what was held back and is not in the snapshot, and deliver directly from now on."""
        held, self.held = self.held or (), None
        self._release()
        return [live for live in held if live.seq > self.snapshot]

    def end(self) -> None:
        """Send nothing more of it."""
        self.is_open = False
        self.held = None
        self._release()
        self.connection.outgoing.drop(self)

    def _release(self) -> None:
        size, self._held_bytes = self._held_bytes, 0
        if size:
            self.connection.outgoing.hold(-size)
