"""The connections of one application: a `RelayFactory` builds them, configures them, and ends them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter, thread_time
from typing import Any, Final, cast

from pyryrelay.close_codes import CloseCode
from pyryrelay.guard import Gate
from pyryrelay.protocol import Application, Request
from pyryrelay.protocol_options import RoutePolicy
from pyryrelay.runtime.fair_queue import FairQueue
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.websocket.connection import Connection, DeflatedConnection
from pyryrelay.websocket.context import ConnectionContext, Traffic, WebSocketLimits
from pyryrelay.websocket.frames.negotiation import negotiate
from pyryrelay.websocket.guarded import HeldLease
from pyryrelay.websocket.reading.read_size import WideReadSlot

__all__ = ["SHUTTING_DOWN", "RelayFactory", "own_queue"]

_EXTENSIONS: Final = "sec-websocket-extensions"

SHUTTING_DOWN = "shutting down"


def own_queue(reactor: Any) -> FairQueue:
    """Return a new queue that runs under a reactor."""
    return FairQueue(perf_counter, partial(reactor.callLater, 0), thread_time)


class RelayFactory:
    """Builds the connection for each upgrade to one application that was let through."""

    def __init__(
        self,
        application: Application,
        policy: RoutePolicy,
        limits: WebSocketLimits,
        gate: Gate,
        wheel: TimerWheel,
        now: Callable[[], float],
        fair_queue: FairQueue,
        wide_slot: WideReadSlot | None = None,
    ) -> None:
        """Create a factory.

        ``fair_queue`` is shared by all connections of the process. ``wide_slot`` is shared with the factories of the
        applications whose connections send to these; without it there are none. What of
        ``policy`` does not change while the relay runs is read here only, and the rest of it by `configure`.
        """
        self.context = ConnectionContext(
            application=application,
            gate=gate,
            wheel=wheel,
            now=now,
            limits=limits,
            wide_slot=WideReadSlot() if wide_slot is None else wide_slot,
            fair_queue=fair_queue,
            throttle=policy.throttle,
            max_message_bytes=policy.max_message_bytes,
            deflate=policy.deflate,
        )
        self.answer_fields = policy.answer_fields
        """Header fields of refusals on the paths of the application."""
        self.configure(policy)

    @property
    def application(self) -> Application:
        """What the connections are opened for."""
        return self.context.application

    @property
    def open(self) -> set[Connection]:
        """The connections that are open, or ending."""
        return cast(set[Connection], self.context.open)

    @property
    def traffic(self) -> Traffic:
        """The totals of its connections."""
        return self.context.traffic

    def build(self, request: Request, lease: HeldLease | None = None) -> Connection:
        """Build the connection for one upgrade. With a ``lease`` it was admitted before, and the gate is not asked."""
        connection = self._connection(request)
        if lease is not None:
            connection.hold(lease)
        return connection

    def _connection(self, request: Request) -> Connection:
        mode = self.context.deflate
        if mode is not None and _EXTENSIONS in request.headers:
            agreed = negotiate(request.headers[_EXTENSIONS], mode)
            if agreed is not None:
                return DeflatedConnection(self.context, request, agreed)
        return Connection(self.context, request)

    def configure(self, policy: RoutePolicy) -> None:
        """Enforce the quotas of a policy, on open connections too; called at the start and at every reload.

        Connections whose quotas stay the same keep what they have spent. ``max_message_bytes`` and ``deflate`` do not
        change while the relay runs, and the gate enforces the caps.
        """
        context = self.context
        if policy.throttle == context.throttle:
            return
        context.throttle = policy.throttle
        for connection in list(context.open):
            connection.configure(policy.throttle)

    def shut_down(self) -> None:
        """Close every connection with 1001."""
        for connection in list(self.context.open):
            connection.close(CloseCode.GOING_AWAY, SHUTTING_DOWN)

    def abort(self) -> None:
        """Reset every connection that is left."""
        for connection in list(self.context.open):
            connection.abort()
