"""What the sessions of binaries and phones share: the registry, its timer, counters, and who is connected.

`Relay` passes the registry's effects on to the sessions that they are about (`pyryrelay.pyry.sessions`). Neither a
clock nor a socket is known here: the time comes in as ``now`` and ``call_later``.

Contract: the specification "pyry-v1".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pyryrelay.guard import ClientAddress, Quota
from pyryrelay.protocol import Cancellable
from pyryrelay.pyry.envelope import EnvelopeErrorKind
from pyryrelay.pyry.registry import Effect, Registry, Why

UNFAIR_S = 0.5
"""A probe whose verdict comes later than this was not given its chance."""

BINARY_ROUTE, PHONE_ROUTE = "server", "client"
"""What logs, metrics and caps call the connections of binaries and of phones."""
ENDPOINTS = (BINARY_ROUTE, PHONE_ROUTE)
OUTCOMES = ("accept", "reject_409", "reject_404", "reject_429")
"""Of upgrades that were completed."""
_OUTCOME_OF = {Why.CONFLICT: "reject_409", Why.NO_SERVER: "reject_404", Why.TOO_MANY_PHONES: "reject_429"}
_FAILURE_OF = {
    Why.CONFLICT: "server_in_use",
    Why.NO_SERVER: "no_server",
    Why.TOO_MANY_PHONES: "phones_at_cap",
}


@dataclass(slots=True)
class Counters:
    """Totals since the start. The keys are fixed words; nothing a client sends becomes one."""

    upgrades: dict[tuple[str, str], int] = field(
        default_factory=lambda: dict.fromkeys(itertools.product(ENDPOINTS, OUTCOMES), 0)
    )
    register_failures: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("no_server", "server_in_use", "phones_at_cap"), 0)
    )
    phone_to_binary: int = 0
    binary_to_phone: int = 0
    envelopes_dropped: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*EnvelopeErrorKind, "unknown_conn_id"), 0)
    )
    push_wakes_dropped: int = 0


class Events(Protocol):
    """Whoever logs what happens. No argument ever holds a frame or a token.

    ``connection`` numbers the connections of binaries and phones from 1, in the order of their upgrades.
    """

    def claimed(self, server_id: str, version: str, client: ClientAddress, connection: int) -> None:
        """A binary holds the server-id now."""

    def released(self, server_id: str, code: int, connection: int) -> None:
        """The connection of a binary ended with this close code."""

    def registered(
        self, server_id: str, conn_id: str, device_name: str, client: ClientAddress, connection: int
    ) -> None:
        """A phone is paired with a server-id."""

    def unregistered(self, server_id: str, conn_id: str, code: int, connection: int) -> None:
        """The connection of a phone ended with this close code."""

    def closed_by_registry(self, server_id: str, code: int, reason: str, connection: int) -> None:
        """The registry had a connection closed, or turned it away."""

    def envelope_dropped(self, server_id: str, kind: str, count: int, connection: int) -> None:
        """A binary sent so many envelopes at once that cannot be delivered, for one reason."""

    def push_wake_dropped(self, server_id: str, count: int, connection: int) -> None:
        """A binary asked for so many push wakes at once, and there is nobody to send them."""


class RegistrySession(Protocol):
    """A connection that the registry knows."""

    def apply(self, effect: Effect) -> None:
        """Carry out one of the registry's effects."""


class Relay:
    """What both applications share: the registry, its one timer, and every session."""

    def __init__(
        self,
        registry: Registry,
        events: Events,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        dropped_envelope_quota: Quota | None = None,
    ) -> None:
        self.registry = registry
        self.dropped_envelope_quota = dropped_envelope_quota
        self.events = events
        self.now = now
        self.counters = Counters()
        self._call_later = call_later
        self._timer: Cancellable | None = None
        self._timer_at: float | None = None
        self._stopped = False
        self._sessions: dict[int, RegistrySession] = {}
        self._ids = itertools.count(1)

    def configure(self, grace_s: float, max_phones: int, dropped_envelope_quota: Quota | None) -> None:
        """Enforce these from now on; see `pyryrelay.pyry.options.PyryOptions`."""
        self.registry.grace_s = grace_s
        self.registry.max_phones = max_phones
        self.dropped_envelope_quota = dropped_envelope_quota

    def session(self, peer_id: int) -> RegistrySession | None:
        """The session of a connection; None once it is gone."""
        return self._sessions.get(peer_id)

    def add(self, session: RegistrySession) -> int:
        """Remember a session; its id, which is the number of its connection."""
        peer_id = next(self._ids)
        self._sessions[peer_id] = session
        return peer_id

    def forget(self, peer_id: int) -> None:
        """The connection is gone."""
        self._sessions.pop(peer_id, None)

    def apply(self, effects: Sequence[Effect]) -> None:
        """Carry out what the registry decided, in its order."""
        for effect in effects:
            session = self._sessions.get(effect.peer)
            if session is not None:
                session.apply(effect)
        self._rearm()

    def stop(self) -> None:
        """No timer is left behind, and none will be started."""
        self._stopped = True
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._timer_at = None

    def _rearm(self) -> None:
        due = self.registry.next_deadline()
        if due == self._timer_at:
            return
        self._cancel()
        if due is not None and not self._stopped:
            self._timer_at = due
            self._timer = self._call_later(max(0.0, due - self.now()), self._tick)

    def _tick(self) -> None:
        now = self.now()
        # Timers run before sockets are read. When this one is late, an answer may wait there that nobody has read, and
        # whoever keeps this process busy must not win a server-id by it.
        fair = self._timer_at is None or now - self._timer_at <= UNFAIR_S
        self._timer = self._timer_at = None
        self.apply(self.registry.tick(now, fair=fair))

    def count_upgrade(self, endpoint: str, outcome: str) -> None:
        """One attempt ended like this."""
        self.counters.upgrades[endpoint, outcome] += 1

    def count_rejection(self, endpoint: str, why: Why) -> None:
        """The registry turned a new connection away; evictions of old ones are no rejections."""
        outcome = _OUTCOME_OF.get(why)
        if outcome is not None:
            self.count_upgrade(endpoint, outcome)
            self.counters.register_failures[_FAILURE_OF[why]] += 1
