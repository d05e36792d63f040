"""What all connections of one application share, and the limits of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pyryrelay.guard import Gate, ThrottlePolicy
from pyryrelay.protocol import Application
from pyryrelay.protocol_options import Deflate
from pyryrelay.runtime.fair_queue import FairQueue
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.websocket.reading.read_size import WideReadSlot

__all__ = ["ConnectionContext", "OpenConnection", "Traffic", "WebSocketLimits"]


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """Limits of one connection that no option changes while the relay runs. Times are seconds.

    ``fragments`` bounds the frames of one message: otherwise a stream of empty continuations would never end.
    ``close_timeout_s`` is how long a peer may take to answer our close frame, or to take what waits before it.
    """

    fragments: int = 1024
    message_timeout_s: float = 30.0
    ping_interval_s: float = 30.0
    pong_timeout_s: float = 30.0
    close_timeout_s: float = 5.0


class OpenConnection(Protocol):
    """An upgraded connection, as the factory sees it."""

    def configure(self, throttle: ThrottlePolicy) -> None:
        """Enforce other quotas from the next chunk on."""

    def close(self, code: int, reason: str = "") -> None:
        """Deliver what was sent before, then close."""

    def abort(self) -> None:
        """Reset the connection."""


@dataclass(slots=True)
class Traffic:
    """Totals of all connections of one application since the start.

    Bytes are those of frames, with their headers, and without TLS. Received ones include control frames; sent ones are
    those of messages, also of messages that a slow peer never takes.
    """

    admitted: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(slots=True, eq=False)
class ConnectionContext:
    """What all connections of one application share.

    ``now`` is the monotonic clock. ``throttle`` has the quotas of each connection, and may be replaced while it is
    open; ``max_message_bytes`` and ``deflate`` count for connections that are made afterwards. Connections add and
    remove themselves in ``open``. ``wide_slot`` is shared with the applications whose connections send to these;
    ``fair_queue`` with all connections of the process.
    """

    application: Application
    gate: Gate
    wheel: TimerWheel
    now: Callable[[], float]
    limits: WebSocketLimits
    wide_slot: WideReadSlot
    fair_queue: FairQueue
    throttle: ThrottlePolicy
    max_message_bytes: int
    deflate: Deflate | None = None
    open: set[OpenConnection] = field(default_factory=set)
    traffic: Traffic = field(default_factory=Traffic)
