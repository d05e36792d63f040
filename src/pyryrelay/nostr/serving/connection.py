"""The state of one peer that publishing, querying and authentication share, and what waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyryrelay.close_codes import CloseCode
from pyryrelay.guard import ClientAddress
from pyryrelay.nostr.policies.quotas.tables import ConnectionQuotas
from pyryrelay.nostr.policies.refusal import Context
from pyryrelay.nostr.serving.outgoing import Outgoing

SHUTTING_DOWN: Final = "shutting down"
_NO_KEYS: Final[frozenset[str]] = frozenset()


class Connection:
    """One peer. ``keys`` are those that it has authenticated, ``challenge`` is None until one was sent."""

    __slots__ = ("challenge", "client", "heard_s", "is_exempt", "is_leaving", "keys", "outgoing", "quotas")

    def __init__(self, client: ClientAddress | None, outgoing: Outgoing, heard_s: float, *, is_exempt: bool) -> None:
        self.client = client
        self.outgoing = outgoing
        self.quotas = ConnectionQuotas()
        self.keys = _NO_KEYS
        self.challenge: str | None = None
        self.is_exempt = is_exempt
        self.heard_s = heard_s
        """When its last message came."""
        self.is_leaving = False
        """Whether nothing more is read from it: it is closed once its events are answered."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over, or is being closed."""
        return self.outgoing.is_closed

    def context(self, wall_s: int) -> Context:
        """Return who sends something, for policies."""
        return Context(self.client, self.keys, wall_s, self.is_exempt)

    def reply(self, messages: Sequence[bytes]) -> None:
        """Send whole messages."""
        if messages and not self.outgoing.is_closed:
            self.outgoing.send(messages)

    def close_if_leaving(self) -> None:
        """Close the connection if it is leaving; all of its events are answered."""
        if self.is_leaving and not self.outgoing.is_closed:
            self.outgoing.close(CloseCode.GOING_AWAY, SHUTTING_DOWN)
