"""The WebSocket side of the relay: one `RelayFactory` for each application, and the limits of its connections.

What one connection does is in `pyryrelay.websocket.connection`. Times are seconds of a monotonic clock, sizes are
bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter, thread_time
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.interfaces import IReactorTime

from pyryrelay.close_codes import CloseCode
from pyryrelay.guard import Gate, ThrottlePolicy
from pyryrelay.protocol import Application, Request
from pyryrelay.runtime.fair_queue import FairQueue
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.websocket.connection import Connection
from pyryrelay.websocket.reading.read_size import WideReadSlot

UNLIMITED = ThrottlePolicy()

SHUTTING_DOWN = "shutting down"


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """Sizes and times of one upgraded connection (pyry-v1, "Limits and liveness").

    ``fragments`` bounds the frames of one message: a stream of empty continuations would else never end.
    ``close_timeout_s`` is how long a peer may take to answer our close frame, or to take what waits before it.
    """

    message_bytes: int = 262144
    fragments: int = 1024
    message_timeout_s: float = 30.0
    ping_interval_s: float = 30.0
    pong_timeout_s: float = 30.0
    close_timeout_s: float = 5.0


def own_queue(reactor: Any) -> FairQueue:
    """A queue under a reactor, for whoever shares none."""
    return FairQueue(perf_counter, partial(reactor.callLater, 0), thread_time)


class RelayFactory(WebSocketServerFactory):
    """Builds the protocol for upgrades that the entrance let through."""

    noisy = False

    def __init__(
        self,
        application: Application,
        gate: Gate,
        wheel: TimerWheel,
        reactor: IReactorTime,
        now: Callable[[], float],
        limits: WebSocketLimits = WebSocketLimits(),
        throttle: ThrottlePolicy = UNLIMITED,
        wide_slot: WideReadSlot | None = None,
        fair_queue: FairQueue | None = None,
    ) -> None:
        """Create a factory.

        ``seat`` is shared with the factories of those who may be sent to; without it there are none. ``fair_queue`` is
        shared by all connections of the process.
        """
        super().__init__(server="", reactor=reactor)
        self.application = application
        self.gate = gate
        self.wheel = wheel
        self.now = now
        self.limits = limits
        self.throttle = throttle
        self.open: set[Connection] = set()
        self.wide_slot = WideReadSlot() if wide_slot is None else wide_slot
        self.fair_queue = own_queue(reactor) if fair_queue is None else fair_queue

    def build(self, request: Request) -> Connection:
        """The protocol for one upgrade."""
        return Connection(self, request)

    def set_throttle(self, policy: ThrottlePolicy) -> None:
        """Enforce other quotas, on open connections too; the same ones go on as they are."""
        if policy == self.throttle:
            return
        self.throttle = policy
        for protocol in list(self.open):
            protocol.set_throttle(policy)

    def shut_down(self) -> None:
        """Close everyone with 1001."""
        for protocol in list(self.open):
            protocol.close(CloseCode.GOING_AWAY, SHUTTING_DOWN)

    def abort(self) -> None:
        """Cut off everyone who is left."""
        for protocol in list(self.open):
            protocol.transport.abortConnection()
