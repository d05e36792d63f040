"""The state that the sessions of binaries and phones share: the registry, its timer, counters, and all sessions.

`Relay` passes the registry's effects to the sessions that they concern (`pyryrelay.pyry.sessions`). It uses no clock
and no socket of its own: the time comes in as ``now`` and ``call_later``.

Contract: the specification "pyry-v1".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from pyryrelay.guard import ClientAddress, Quota
from pyryrelay.protocol import Cancellable, Session
from pyryrelay.pyry.envelope import EnvelopeErrorKind, PushWake
from pyryrelay.pyry.registry import CloseCause, Effect, Registry, Vacated

MAX_PROBE_DELAY_S = 0.5
"""If the timer of a probe is later than this, the probe starts again: an answer may be waiting to be read."""

BINARY_ROUTE, PHONE_ROUTE = "server", "client"
"""The names of the two applications in logs, metrics and caps."""
ENDPOINTS = (BINARY_ROUTE, PHONE_ROUTE)
OUTCOMES = ("accept", "reject_409", "reject_404", "reject_429")
"""How the registry decides about an upgrade that is complete."""
PUSH_OUTCOMES = ("sent", "unregistered", "send_failed", "token_fetch_failed", "dropped")
"""What becomes of push wakes."""
_OUTCOME_OF = {
    CloseCause.CONFLICT: "reject_409",
    CloseCause.NO_SERVER: "reject_404",
    CloseCause.TOO_MANY_PHONES: "reject_429",
}
_FAILURE_OF = {
    CloseCause.CONFLICT: "server_in_use",
    CloseCause.NO_SERVER: "no_server",
    CloseCause.TOO_MANY_PHONES: "phones_at_cap",
}


@dataclass(slots=True)
class Counters:
    """Totals since the start. The keys are fixed words, never text from a client."""

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
    push_wakes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PUSH_OUTCOMES, 0))


class Events(Protocol):
    """The log of what happens. No argument ever contains a frame or a token.

    ``connection`` is the number of a connection: upgrades of binaries and phones are counted together, from 1.
    """

    def claimed(self, server_id: str, version: str, client: ClientAddress, connection: int) -> None:
        """Log that a binary has become the holder of a server-id."""

    def released(self, server_id: str, code: int, connection: int) -> None:
        """Log that the connection of a binary ended with this close code."""

    def registered(
        self, server_id: str, conn_id: str, device_name: str, client: ClientAddress, connection: int
    ) -> None:
        """Log that a phone is registered under a server-id."""

    def unregistered(self, server_id: str, conn_id: str, code: int, connection: int) -> None:
        """Log that the connection of a phone ended with this close code."""

    def closed_by_registry(self, server_id: str, code: int, reason: str, connection: int) -> None:
        """Log that the registry refused or closed a connection."""

    def envelope_dropped(self, server_id: str, kind: str, count: int, connection: int) -> None:
        """Log that ``count`` envelopes of one batch of a binary could not be delivered, for one reason."""

    def push_wake_dropped(self, server_id: str, count: int, connection: int) -> None:
        """Log that ``count`` push wakes of one batch were dropped, because the relay sends none."""

    def push_wake_failed(self, server_id: str, outcome: str, reason: str, connection: int) -> None:
        """Log that a phone was not woken; ``outcome`` is one of `PUSH_OUTCOMES`, ``reason`` a fixed word."""


class WakeSender(Protocol):
    """Sends push wakes."""

    def wake(self, server_id: str, wake: PushWake, connection: int, report_dead: Callable[[], None]) -> None:
        """Send a wake that a connection asks for, or drop it. ``report_dead`` tells that its token is dead."""


class RegistrySession(Protocol):
    """The session of a binary or a phone, as the registry's effects reach it."""

    def apply(self, effect: Effect) -> None:
        """Carry out one of the registry's effects on this connection."""


Admit: TypeAlias = Callable[[], None]
"""Asks the registry for a place."""


class Opening(RegistrySession, Session, Protocol):
    """A session that has not asked the registry yet."""

    server_id: str
    id: int


class Handover(Protocol):
    """What decides about new peers while this process, or the one before, hands its peers over."""

    def opened(self, session: Opening, admit: Admit) -> Session | None:
        """Return the session of a peer that this takes care of; None if it is to be admitted as usual."""

    def vacated(self) -> None:
        """Learn that slots have become vacant, and that all effects of that are carried out."""


class Relay:
    """The registry, its timer, the counters and all sessions, for both applications.

    ``vacated`` is called with each server-id whose slot becomes vacant.
    """

    def __init__(
        self,
        registry: Registry,
        events: Events,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        dropped_envelope_quota: Quota | None = None,
        vacated: Callable[[str], None] = lambda server_id: None,
    ) -> None:
        self.registry = registry
        self.dropped_envelope_quota = dropped_envelope_quota
        self.events = events
        self.now = now
        self._vacated = vacated
        self.counters = Counters()
        self.wakes: WakeSender | None = None
        """Sends push wakes; None drops them."""
        self.call_later = call_later
        self.handover: Handover | None = None
        self._timer: Cancellable | None = None
        self._timer_at: float | None = None
        self._stopped = False
        self._sessions: dict[int, RegistrySession] = {}
        self._ids = itertools.count(1)

    def configure(self, grace_s: float, max_phones: int, dropped_envelope_quota: Quota | None) -> None:
        """Enforce these values from now on; see `pyryrelay.pyry.options.PyryOptions`."""
        self.registry.grace_s = grace_s
        self.registry.max_phones = max_phones
        self.dropped_envelope_quota = dropped_envelope_quota

    def session(self, peer_id: int) -> RegistrySession | None:
        """Return the session of a connection; None once the connection is gone."""
        return self._sessions.get(peer_id)

    def add(self, session: RegistrySession) -> int:
        """Add a session and return its id, which is the number of its connection."""
        peer_id = next(self._ids)
        self._sessions[peer_id] = session
        return peer_id

    def forget(self, peer_id: int) -> None:
        """Remove the session of a connection that is gone."""
        self._sessions.pop(peer_id, None)

    def apply(self, effects: Sequence[Effect]) -> None:
        """Carry out effects of the registry, in order."""
        is_vacated = False
        for effect in effects:
            if isinstance(effect, Vacated):
                is_vacated = True
                self._vacated(effect.server_id)
                continue
            session = self._sessions.get(effect.peer)
            if session is not None:
                session.apply(effect)
        self._rearm()
        if is_vacated and self.handover is not None:
            self.handover.vacated()

    def stop(self) -> None:
        """Cancel the timer, and start no other."""
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
            self._timer = self.call_later(max(0.0, due - self.now()), self._tick)

    def _tick(self) -> None:
        now = self.now()
        # Timers run before sockets are read. If this one is late, an answer may be waiting to be read, and clients that
        # keep the process busy must not gain a server-id that way.
        is_late = self._timer_at is not None and now - self._timer_at > MAX_PROBE_DELAY_S
        self._timer = self._timer_at = None
        self.apply(self.registry.tick(now, restart_probes=is_late))

    def wake_ended(self, server_id: str, outcome: str, reason: str, connection: int) -> None:
        """Count what became of a push wake, and log it unless the phone was woken."""
        self.counters.push_wakes[outcome] += 1
        if outcome != "sent":
            self.events.push_wake_failed(server_id, outcome, reason, connection)

    def count_upgrade(self, endpoint: str, outcome: str) -> None:
        """Count an upgrade by its outcome."""
        self.counters.upgrades[endpoint, outcome] += 1

    def count_rejection(self, endpoint: str, cause: CloseCause) -> None:
        """Count a new connection that the registry refused. Closes of established connections are no rejections."""
        outcome = _OUTCOME_OF.get(cause)
        if outcome is not None:
            self.count_upgrade(endpoint, outcome)
            self.counters.register_failures[_FAILURE_OF[cause]] += 1
