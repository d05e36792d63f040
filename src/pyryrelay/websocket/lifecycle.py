"""The life of a connection: its state, and how it ends. The lowest of the layers that make up a `Connection`.

Invariants: the session is told `closed` exactly once; the gate's lease lives until the transport is lost; from the
moment that the end has begun, time is limited. The states and what leads from one to the next are a table, see
`pyryrelay.websocket.states`; each action there is a method here, with an underscore before its name. A layer above may
extend it.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.close_codes import CloseCode
from pyryrelay.guard import ClientAddress
from pyryrelay.protocol import Session
from pyryrelay.runtime.transports import socket_transport
from pyryrelay.websocket.autobahn_base import AutobahnBase
from pyryrelay.websocket.context import ConnectionContext
from pyryrelay.websocket.guarded import Guarded
from pyryrelay.websocket.outbox.half_close import LINGER_S
from pyryrelay.websocket.outbox.outbox import Outbox
from pyryrelay.websocket.states import TRANSITIONS, Event, State

__all__ = ["Lifecycle"]

_log = Logger(namespace="pyryrelay")

# Members of an enum take five times as long to look up.
_CONNECTING, _OPEN, _FLUSHING, _DRAINING = State.CONNECTING, State.OPEN, State.FLUSHING, State.DRAINING
_CLOSED = State.CLOSED
_WRITING_ENDED, _LOST = Event.WRITING_ENDED, Event.LOST

_STEPS: Final = {pair: (row.target, f"_{row.action}") for pair, row in TRANSITIONS.items()}
"""The next state and the method of each transition."""


class Lifecycle(Guarded, AutobahnBase):  # type: ignore[misc]  # Autobahn's own bases disagree
    """See the module's text. ``transport`` is set before the first event."""

    context: ConnectionContext
    client: ClientAddress
    _state = State.CONNECTING
    _session: Session | None = None
    _outbox: Outbox | None = None
    _close_with: tuple[int, str] | None = None  # what the application closed the peer with
    _failed_with: tuple[int, str] | None = None  # what the session is told of a failure of our own
    _cut_off_at_s: float = inf  # when the time for the present part of the end is over

    # What the layers above bring

    def _update_reading(self) -> None:
        """Read from the peer or not, as the state and everything else demand."""
        raise NotImplementedError

    def _arm(self) -> None:
        """Make the timer wheel call when the earliest deadline is due."""
        raise NotImplementedError

    def _look_again(self, now: float) -> None:
        """Make the timer wheel call soon, because nothing is read any more."""
        raise NotImplementedError

    # Events

    def _fire(self, event: Event) -> None:
        """Go to the next state, and do what the table says."""
        self._state, action = _STEPS[self._state, event]
        getattr(self, action)()

    def close(self, code: int, reason: str = "") -> None:
        """See `pyryrelay.protocol.Peer`."""
        if self._state is _OPEN:
            self._close_with = code, reason
            self._fire(Event.CLOSE_REQUESTED)

    def abort(self) -> None:
        """Reset the connection."""
        if _CONNECTING < self._state < State.ABORTED:
            self._fire(Event.CUT_OFF)

    def ended_below(self) -> None:
        """End as a plain connection does whose peer has left, and in bounded time, whatever is still on its way."""
        if _CONNECTING < self._state < _DRAINING:
            self._fire(Event.PEER_LEFT)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is lost. Autobahn need not know it."""
        if self._state is not _CLOSED:
            self._fire(_LOST)

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection for a reason of our own, without waiting for what is buffered."""
        if self._state >= _DRAINING:
            return
        if self._state <= _FLUSHING:
            if self._outbox is not None:
                self._outbox.clear()
            self.send_close(*(self._close_with or (code, reason)))
        self._failed_with = int(code), reason
        self._fire(Event.FAILED)

    # Actions, by their names in the table

    def _open(self) -> None:
        self.allow_messages()

    def _flush_before_close(self) -> None:
        self._limit_end()
        self._update_reading()
        # What was held may have held the end.
        if self._state is _FLUSHING and (self._outbox is None or self._outbox.empty):
            self._fire(Event.FLUSHED)

    def _send_close_frame(self) -> None:
        code, reason = self._close_with or (CloseCode.NORMAL, "")
        self.send_close(code, reason)

    def _end(self) -> None:
        """Close the WebSocket connection (RFC 6455 section 7.1.1): end the write side, then wait for the peer's end.

        What arrives meanwhile is read and discarded. A reset would destroy the close frame on its way.
        """
        self.end_messages()
        self._limit_end()
        self._update_reading()
        if self._outbox is None:
            self.transport.loseConnection()  # the upgrade was denied, or failed
        else:
            self._outbox.finish(self._writing_ended)
        self._tell_session()

    def _linger(self) -> None:
        self._cut_off_at_s = self.now() + LINGER_S
        self._arm()

    def _disconnect(self) -> None:
        self._cut_off_at_s = self.now() + self.context.limits.close_timeout_s
        self._arm()
        socket_transport(self.transport).loseConnection()

    def _reset(self) -> None:
        self.end_messages()
        self._cut_off_at_s = inf
        self.transport.abortConnection()

    def _release_all(self) -> None:
        self.end_messages()
        self._cut_off_at_s = inf
        self.release()
        self._tell_session()
        # A connection must not know what knows it any more: then all of it is freed at once, and ten thousand that come
        # and go leave nothing for the garbage collector.
        self._outbox = None

    # Parts of the actions

    def _limit_end(self) -> None:
        """Limit the time for the end, unless it is limited."""
        if self._cut_off_at_s == inf:
            self._cut_off_at_s = self.now() + self.context.limits.close_timeout_s
            self._arm()

    def _writing_ended(self) -> None:
        """Our close frame is out, and the write side has ended."""
        if self._state is _DRAINING:
            self._fire(_WRITING_ENDED)

    def _tell_session(self) -> None:
        """Tell the session the end, if it does not know it."""
        session, self._session = self._session, None
        if session is not None:
            code, reason = self._failed_with or self.close_status()
            self._ask_application(session.closed, code, reason)

    def _ask_application(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call into the application; a fault of its ends this connection and nothing else."""
        try:
            call(*arguments)
        except Exception:
            self._application_failed()

    def _application_failed(self, failure: Failure | None = None) -> None:
        """End the connection because of a failure of the application's: the exception that is handled, unless given."""
        _log.failure("An application failed", failure)
        self._fail(CloseCode.INTERNAL_ERROR, "internal error")
