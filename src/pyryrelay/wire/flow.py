"""Backpressure: an outbox between whoever sends to a peer and that peer's transport.

Once more than 64 KiB wait in the transport, whole frames wait here, in order, and are handed over in slices of about
64 KiB as the transport drains, so that every slice is a sign of life of the peer. Limits apply to what waits here.
Frames are never cut: control frames may go between any two writes, by `Outbox.write_now`.

Where the transport is a plain socket and holds nothing, the socket is given the data at once: most writes are taken
whole, and cost no turn of the reactor.

Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import cast

from twisted.internet.interfaces import IConsumer, IProtocol, IPushProducer, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from pyryrelay.application import PeerPolicy
from pyryrelay.wire.frames import SLICE_BYTES, Encoded
from pyryrelay.wire.linger import end_socket_writing, end_writing
from pyryrelay.wire.sockets import tune_socket

_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class IStreamTransport(ITCPTransport, IPushProducer, IConsumer):
    """What the transports of TCP, TLS and UNIX-domain connections offer, and this package uses."""


def of_the_socket(transport: IStreamTransport) -> IStreamTransport:
    """The transport that has the socket, below those that read TLS or PROXY headers."""
    while isinstance(transport, ProtocolWrapper):
        transport = cast(IStreamTransport, transport.transport)
    return transport


def has_hung_up(transport: IStreamTransport) -> bool:
    """Whether the peer of a transport has ended its side of the connection, or all of it, whatever is still unread."""
    if not isinstance(transport, Connection):
        return False
    poll = select.poll()
    poll.register(transport.fileno(), _HUNG_UP)
    return bool(poll.poll(0))


def replace_protocol(transport: IStreamTransport, protocol: IProtocol) -> None:
    """Have a transport of Twisted's speak to another protocol from now on, so that the one before can go."""
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    elif isinstance(transport, Connection):
        transport.protocol = protocol


def tune(transport: IStreamTransport) -> None:
    """Tune the socket of a transport, where it has one that is not tuned by birth."""
    bottom = of_the_socket(transport)
    if not getattr(bottom, "is_tuned", False):
        with contextlib.suppress(AttributeError):
            tune_socket(bottom.getHandle())  # type: ignore[attr-defined]


def _send(plain: socket.socket, data: bytes) -> int:
    """Give a socket what it takes at once; how much that was. What is wrong with it the transport finds out itself."""
    try:
        return plain.send(data)
    except OSError:
        return 0


@implementer(IPushProducer)
class Outbox:
    """The producer of one transport, fed by any number of sources; nobody else writes to it, or has written before.

    It registers itself with its transport: as a pull producer with a plain socket, because such a one is told whenever
    the transport holds nothing any more, and as a streaming one elsewhere. Call `finish` before `loseConnection`: with
    a pull producer Twisted would wait for more for ever. ``drained`` is called whenever everything that had to wait has
    been handed over.
    """

    __slots__ = (
        "_drained",
        "_handed_over_bytes",
        "_now",
        "_policy",
        "_postponed",
        "_socket",
        "_transport",
        "_transport_bytes",
        "_waiting",
        "_waiting_frames",
        "_when_written",
        "blocked_since_s",
        "waiting_bytes",
    )

    def __init__(
        self,
        transport: IStreamTransport,
        policy: PeerPolicy,
        now: Callable[[], float],
        drained: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._policy = policy
        self._now = now
        self._drained = drained
        self._waiting: deque[Encoded] = deque()
        self._waiting_frames = 0
        self._handed_over_bytes = 0
        self.waiting_bytes = 0
        self.blocked_since_s: float | None = None
        """When the transport last stopped taking data; None while it takes it."""
        self._socket: socket.socket | None = None
        self._transport_bytes = 0
        """The most that a plain socket's transport may hold."""
        self._postponed = b""
        self._when_written: Callable[[], None] | None = None
        is_plain = isinstance(transport, Connection)
        transport.registerProducer(self, not is_plain)
        self._socket = transport.getHandle() if is_plain else None  # type: ignore[attr-defined]

    @property
    def buffered_bytes(self) -> int:
        """About what waits in this process: 0 while the transport keeps up."""
        return 0 if self.blocked_since_s is None else self._handed_over_bytes + self.waiting_bytes

    @property
    def blocked(self) -> bool:
        """Whether the transport takes nothing for now."""
        return self.blocked_since_s is not None

    @property
    def stalled_at_s(self) -> float:
        """When the peer will have taken nothing for too long; `math.inf` while it keeps up, or may take any time."""
        timeout_s = self._policy.stall_timeout_s
        return inf if timeout_s is None or self.blocked_since_s is None else self.blocked_since_s + timeout_s

    @property
    def empty(self) -> bool:
        """True when nothing waits here (the transport may still hold a slice)."""
        return not self._waiting

    def write(self, slices: Sequence[Encoded]) -> bool:
        """Send whole frames in order. False when the policy's limits are broken; the outbox is then cleared."""
        if self._waiting or self.blocked:
            self._put_off(slices)
            return self._within_limits()
        for number, (data, _) in enumerate(slices, 1):
            if not self._hand_over(data):
                self._put_off(slices[number:])
                return self._within_limits()
        return True

    def write_now(self, data: bytes) -> None:
        """Send whole control frames before what waits here."""
        self._hand_over(data)

    def postpone(self, data: bytes) -> None:
        """Send this, and whatever comes behind it, at the next `flush`."""
        self._postponed += data

    def flush(self) -> None:
        """Send what was postponed."""
        data, self._postponed = self._postponed, b""
        if data:
            self._hand_over(data)

    def finish(self, written: Callable[[], None]) -> None:
        """End the write side behind what was handed over, and forget what waits. Nothing may be written afterwards.

        ``written`` is called once the transport has been told to end it, which is when it holds no more than it likes.
        """
        self.flush()
        self.clear()
        self._when_written = written
        if not (self.blocked or self._transport_bytes):
            self._end_writing()

    def _end_writing(self) -> None:
        written, self._when_written = self._when_written, None
        self._transport.unregisterProducer()
        if self._socket is not None:
            end_socket_writing(self._socket)
        else:
            end_writing(self._transport)
        if written is not None:
            written()

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._waiting_frames = self.waiting_bytes = 0

    def _put_off(self, slices: Sequence[Encoded]) -> None:
        self._waiting.extend(slices)
        for data, frames in slices:
            self.waiting_bytes += len(data)
            self._waiting_frames += frames

    def _within_limits(self) -> bool:
        policy = self._policy
        counted_bytes = self.waiting_bytes + self._waiting_frames * policy.frame_overhead_bytes
        if policy.outbox_bytes is None or counted_bytes <= policy.outbox_bytes:
            return True
        self.clear()
        return False

    def _pump(self) -> None:
        waiting = self._waiting
        while waiting and self.blocked_since_s is None:
            size = 0
            pieces = []
            while waiting and size < SLICE_BYTES:
                data, frames = waiting.popleft()
                size += len(data)
                self._waiting_frames -= frames
                pieces.append(data)
            self.waiting_bytes -= size
            self._hand_over(b"".join(pieces))

    def _hand_over(self, data: bytes) -> bool:
        """Give the transport a slice; whether it takes another one."""
        if self._postponed:
            self._postponed += data
            return True
        self._handed_over_bytes = len(data)
        if self._socket is not None:
            if not self._transport_bytes:
                sent = _send(self._socket, data)
                if sent == len(data):
                    return True
                data = data[sent:]
            self._transport_bytes += len(data)
            if self._transport_bytes > SLICE_BYTES:
                self.pauseProducing()
        self._transport.write(data)
        return not self.blocked

    # IPushProducer: the transport calls these.

    def pauseProducing(self) -> None:
        """The transport holds enough. Called again for each write while it does."""
        if self.blocked_since_s is None:
            self.blocked_since_s = self._now()

    def resumeProducing(self) -> None:
        """The transport has handed everything to the operating system."""
        self._transport_bytes = 0
        if self._when_written is not None:
            self._end_writing()
            return
        if self.blocked_since_s is None:
            return
        self.blocked_since_s = None
        self._pump()
        if not self._waiting and not self.blocked:
            self._drained()

    def stopProducing(self) -> None:
        """The connection is lost; whoever fed this outbox learns it elsewhere."""
        self.clear()
        self._postponed = b""
        self.blocked_since_s = self._socket = self._when_written = None
