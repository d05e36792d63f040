"""When a connection must be looked at: heartbeat, slow messages, stalled writes, debts, and the time of its end.

A peer that is not read from cannot be heard to leave, so the socket is asked about once a second. If the connection is
reset, it ends at once. If the peer has ended its side in order, what it sent before may be the last frames of an honest
client: they wait until they can be read, but for `UNREAD_S` at most. A host that vanishes without a packet is noticed
when the peer is read from again.

Liveness is ours and not Autobahn's: one wheel for all connections, no pings for a peer that is not read from, and a
probe (`pyryrelay.websocket.liveness`). Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from pyryrelay.close_codes import CloseCode
from pyryrelay.runtime.transports import Departure, departure, has_hung_up, socket_transport
from pyryrelay.websocket.liveness import Action
from pyryrelay.websocket.receiving import Receiving
from pyryrelay.websocket.states import Event, State

__all__ = ["PROBE_LOOK_S", "STOPPED_LOOK_S", "UNREAD_S", "Deadlines"]

PROBE_LOOK_S: Final = 1.0
"""Interval for checking whether a peer whose pong is awaited takes what is on its way to it."""
STOPPED_LOOK_S: Final = 1.0
"""Interval for checking whether a peer has left that is not read from.

If it is in debt with its quotas for that long at least, what it has sent is dropped: otherwise it would stay connected
for minutes.
"""
UNREAD_S: Final = 30.0
"""How long what a peer has sent before it left may wait until the application reads on."""

_OPEN, _FLUSHING = State.OPEN, State.FLUSHING


class Deadlines(Receiving):
    """The layer that knows what time it is."""

    wheel_slot: int | None = None
    _probe_position: tuple[int, int] | None = None
    """When a probe's ping was sent: what the peer had acknowledged, and what it will have when the ping arrives."""

    def ping(self, answered: Callable[[], None]) -> None:
        """See `pyryrelay.protocol.Peer`."""
        if self._state > _FLUSHING:
            return
        if self._stopped:
            # A peer that has sent too much to be read from is alive, and its pong could not be read.
            answered()
        else:
            self.sendPing(self._liveness.ping(answered))
            self._probe_position = None if self._outbox is None else self._outbox.position()
            self._arm()

    def _arm(self) -> None:
        """Make the wheel call when the earliest deadline is due. An earlier call does no harm."""
        due_s = self._cut_off_at_s if self._state > _OPEN else self._next_look_s()
        if due_s < inf:
            self.context.wheel.arm_by(self, due_s)

    def _look_again(self, now: float) -> None:
        """Find out whether the peer leaves while it is not read from."""
        self.context.wheel.arm_by(self, now + STOPPED_LOOK_S)

    def _next_look_s(self) -> float:
        stalled_at_s = inf if self._outbox is None else self._outbox.stalled_at_s
        due_s = min(self._liveness.due_s, stalled_at_s, self._read_pause.due_s)
        if self._probe_position is not None:
            due_s = min(due_s, self.now() + PROBE_LOOK_S)
        if self._stopped:
            due_s = min(due_s, self.now() + STOPPED_LOOK_S)
        return due_s

    def deadline_reached(self, now: float) -> None:
        """Find out which deadline has passed, if any."""
        if now >= self._cut_off_at_s:
            self._fire(Event.TIMED_OUT)
            return
        if self._state is _OPEN:
            self._check(now)
        self._arm()

    def _check(self, now: float) -> None:
        self._look_for_progress()
        if self._outbox is not None and self._outbox.has_stalled():
            self._fail(CloseCode.INTERNAL_ERROR, self.context.application.policy.stall_reason)
            return
        if not self._read_pause.check(now):
            self._fail(CloseCode.POLICY_VIOLATION, "quota exceeded")
            return
        if self._stopped and self._read_pause.is_withheld and self._has_left(now):
            self.abort()
            return
        self._update_reading()
        match self._liveness.check(now):
            case Action.PING:
                self.sendPing(self._liveness.ping())
            case Action.HEARTBEAT_TIMEOUT as action:
                self._fail(CloseCode.INTERNAL_ERROR, action.value)
            case Action.MESSAGE_TIMEOUT as action:
                self._fail(CloseCode.POLICY_VIOLATION, action.value)

    def _has_left(self, now: float) -> bool:
        """Tell whether a peer that is not read from has left, and what it sent before need not be waited for."""
        bottom = socket_transport(self.transport)
        if self._read_pause.debt_s(now) > STOPPED_LOOK_S:
            return has_hung_up(bottom)
        match departure(bottom):
            case Departure.CONNECTED:
                return False
            case Departure.RESET:
                return True
            case Departure.ENDED if bottom is self.transport and not self._has_more:
                # Reading its end is all that is left to do, and ends the connection in order.
                self.transport.resumeProducing()
                return False
        self._left_at_s = min(self._left_at_s, now)
        return now - self._left_at_s >= UNREAD_S

    def _look_for_progress(self) -> None:
        """Count it as the answer to a probe if the peer takes what precedes the ping, which it cannot answer yet."""
        position, outbox = self._probe_position, self._outbox
        if position is None or outbox is None:
            return
        before, (acknowledged, _) = position[0], outbox.position() or position
        if acknowledged > before:
            self._probe_position = None
            if acknowledged < position[1]:
                self._ask_application(self._liveness.heard)

    def _release_all(self) -> None:
        super()._release_all()
        self.context.wheel.cancel(self)
