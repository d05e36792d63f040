"""Backpressure: an outbox between whoever sends to a peer and that peer's transport.

Once more than 64 KiB wait in the transport, frames wait here, in a queue for each source that has its turn (see
`pyryrelay.websocket.outbox.send_queue`), and are handed over in slices of about 64 KiB as the transport drains, so that
every slice is a sign of life of the peer. Limits apply to what waits here. Control frames may go between any two
writes, by `Outbox.write_now`.

On a slow line (see `pyryrelay.websocket.outbox.link_speed`) slices are smaller, frames longer than a slice are cut into
fragments, and transport and kernel hold little: what they hold can be overtaken neither by a control frame nor by
another source.

Where the transport is a plain socket and holds nothing, the socket is given the data at once: most writes are taken
whole, and cost no turn of the reactor.

Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Hashable, Sequence
from math import inf
from typing import Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

from pyryrelay.protocol import PeerPolicy
from pyryrelay.runtime.socket_options import INHERITS_OPTIONS, Delivery, delivery, limit_send_buffer
from pyryrelay.runtime.transports import IStreamTransport, socket_transport
from pyryrelay.runtime.twisted_internals import unsent_bytes
from pyryrelay.websocket.frames.writer import SLICE_BYTES, Encoded
from pyryrelay.websocket.outbox.half_close import end_socket_writing, end_writing
from pyryrelay.websocket.outbox.link_speed import FAST_BYTES_PER_S, LinkSpeed
from pyryrelay.websocket.outbox.send_queue import SendQueue

UNCUT_BYTES: Final = 2 * SLICE_BYTES
"""What a peer whose line is not known yet is given as it is. Longer frames are cut into `FIRST_SLICE_BYTES`."""
FIRST_SLICE_BYTES: Final = 16384
NEAR_S: Final = 0.002
"""A round trip in which a slow line does not carry the smallest packets. Sockets of the UNIX domain have none."""
PROGRESS_BYTES: Final = 4096
"""How much a peer must take to be given as much time again. Otherwise one byte a minute would do."""
LOOK_S: Final = 1.0
"""How long a transport is blocked until it is noted what the peer has taken up to then."""


def _send(plain: socket.socket, data: bytes) -> int:
    """Give a socket what it takes at once; how much that was. What is wrong with it the transport finds out itself."""
    try:
        return plain.send(data)
    except OSError:
        return 0


def _ignore_source(source: Hashable) -> None:
    """Where nobody wants to know whose frames were handed over."""


_NOTHING: Final = SendQueue()
"""The queue of all outboxes in which nothing waits; nothing is ever put into it."""


@implementer(IPushProducer)
class Outbox:
    """The producer of one transport, fed by any number of sources; nobody else writes to it, or has written before.

    It registers itself with its transport: as a pull producer with a plain socket, because such a one is told whenever
    the transport holds nothing any more, and as a streaming one elsewhere. Call `finish` before `loseConnection`: with
    a pull producer Twisted would wait for more for ever. ``drained`` is called whenever everything that had to wait has
    been handed over, and before it ``source_drained`` for each source whose frames had to wait and do not any more.
    """

    __slots__ = (
        "_drained",
        "_handed_over_bytes",
        "_kernel_bytes",
        "_link",
        "_measured_bytes",
        "_measured_since_s",
        "_now",
        "_policy",
        "_postponed",
        "_pumping",
        "_queue",
        "_socket",
        "_source_drained",
        "_taken",
        "_transport",
        "_transport_bytes",
        "_uncut_bytes",
        "_when_written",
        "blocked_since_s",
    )

    def __init__(
        self,
        transport: IStreamTransport,
        policy: PeerPolicy,
        now: Callable[[], float],
        drained: Callable[[], None],
        source_drained: Callable[[Hashable], None] = _ignore_source,
    ) -> None:
        self._transport = transport
        self._policy = policy
        self._now = now
        self._drained = drained
        self._source_drained = source_drained
        self._queue = _NOTHING
        self._handed_over_bytes = 0
        self._link: LinkSpeed | None = None
        """The peer's, if it was found to be slow."""
        self._kernel_bytes: int | None = None
        self._measured_since_s = 0.0
        self._measured_bytes = 0
        """What was handed over since then, while more was waiting all the time; 0 if that tells nothing."""
        self._pumping = False
        self._uncut_bytes = UNCUT_BYTES
        """What may be handed over as it is."""
        self.blocked_since_s: float | None = None
        """When the transport last stopped taking data; None while it takes it."""
        self._taken: tuple[float, int] | None = None
        """When the peer was last seen to take data since then, and how much that was; -1 where nobody can tell."""
        self._socket: socket.socket | None = None
        self._transport_bytes = 0
        """The most that a plain socket's transport may hold."""
        self._postponed = b""
        self._when_written: Callable[[], None] | None = None
        is_plain = isinstance(transport, Connection)
        transport.registerProducer(self, not is_plain)
        self._socket = transport.getHandle() if is_plain else None  # type: ignore[attr-defined]

    @property
    def waiting_bytes(self) -> int:
        """What waits here."""
        return self._queue.size

    def waiting_of(self, source: Hashable) -> int:
        """What waits here of one source."""
        return self._queue.waiting(source)

    @property
    def buffered_bytes(self) -> int:
        """About what waits in this process: 0 while the transport keeps up."""
        return 0 if self.blocked_since_s is None else self._handed_over_bytes + self._queue.size

    @property
    def blocked(self) -> bool:
        """Whether the transport takes nothing for now."""
        return self.blocked_since_s is not None

    @property
    def empty(self) -> bool:
        """True when nothing waits here (the transport may still hold a slice)."""
        return not self._queue.size

    def write(self, slices: Sequence[Encoded], source: Hashable = None) -> bool:
        """Send whole frames in order. False when the policy's limits are broken; the outbox is then cleared."""
        if self._queue.size or self.blocked_since_s is not None:
            self._put_off(slices, source)
            return self._within_limits()
        for number, (data, _) in enumerate(slices):
            if len(data) > self._uncut_bytes and not self._is_near():
                self._put_off(slices[number:], source)
                self._pump()
                if self.empty:
                    self.clear()
                return self._within_limits()
            if not self._hand_over(data):
                self._put_off(slices[number + 1 :], source)
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
        self._queue = _NOTHING

    def _put_off(self, slices: Sequence[Encoded], source: Hashable) -> None:
        if slices:
            if self._queue is _NOTHING:
                self._queue = SendQueue()
            self._queue.put(source, slices)

    def _within_limits(self) -> bool:
        policy, queue = self._policy, self._queue
        counted_bytes = queue.size + queue.frames * policy.frame_overhead_bytes
        if policy.outbox_bytes is None or counted_bytes <= policy.outbox_bytes:
            return True
        self.clear()
        return False

    def _pump(self) -> None:
        """Hand over what waits, until the transport holds enough of it."""
        while (queue := self._queue).size and self.blocked_since_s is None:
            if self._link is not None:
                pieces = queue.take(self._link.slice_bytes, cut=True)
            elif self._uncut_bytes == UNCUT_BYTES:
                pieces = queue.take(FIRST_SLICE_BYTES, cut=True)
            else:
                pieces = queue.take(SLICE_BYTES, cut=False)
            data = b"".join(pieces)
            self._measured_bytes += len(data)
            self._hand_over(data)

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
            if self._transport_bytes > (SLICE_BYTES if self._link is None else 0):
                self.pauseProducing()
        self._transport.write(data)
        return not self.blocked

    # How fast the line is

    def _measure(self) -> None:
        """The transport has taken all that it was given: find out whether its line is slow, or not any more."""
        elapsed_s, size = self._now() - self._measured_since_s, self._measured_bytes
        link = self._link
        if not size:
            return
        if link is not None:
            link.measured(size, elapsed_s)
        elif size < FAST_BYTES_PER_S * elapsed_s:
            link = self._link = LinkSpeed(size / elapsed_s)
        if link is None or not link.is_slow:
            self._link = None
            self._uncut_bytes = sys.maxsize
            self._limit_kernel(None)
            return
        self._uncut_bytes = link.slice_bytes
        found = self._delivery()
        if found is not None:
            held_bytes, round_trip_s = found.outstanding_bytes, found.round_trip_s
            self._limit_kernel(link.kernel_bytes(held_bytes, round_trip_s, self._kernel_bytes))

    def _is_near(self) -> bool:
        """Whether a line that was not measured yet cannot be slow, by its round trip: then nothing is cut for it."""
        handle = self._handle() if self._link is None else None
        if handle is None:
            return False
        found = delivery(handle)
        if found is not None and found.round_trip_s > NEAR_S:
            return False
        self._uncut_bytes = sys.maxsize
        return True

    def _limit_kernel(self, size: int | None) -> None:
        """Let the kernel hold so much; small changes are not worth a call."""
        before = self._kernel_bytes
        if size == before or (size and before and abs(size - before) < before // 4):
            return
        handle = self._handle()
        if handle is not None:
            self._kernel_bytes = size
            limit_send_buffer(handle, size)

    def _handle(self) -> socket.socket | None:
        """The socket, under TLS too; None where there is none, or not any more."""
        if self._socket is not None:
            return self._socket
        get = getattr(socket_transport(self._transport), "getHandle", None)
        return None if get is None else get()

    def _delivery(self) -> Delivery | None:
        handle = self._handle()
        return None if handle is None else delivery(handle)

    # Whether the peer takes anything

    @property
    def stalled_at_s(self) -> float:
        """When to ask `has_stalled`; `math.inf` while the peer keeps up, or may take any time."""
        timeout_s, blocked_since_s = self._policy.stall_timeout_s, self.blocked_since_s
        if timeout_s is None or blocked_since_s is None:
            return inf
        if self._taken is not None:
            return self._taken[0] + timeout_s
        return blocked_since_s + (LOOK_S if INHERITS_OPTIONS and self._handle() is not None else timeout_s)

    def has_stalled(self) -> bool:
        """Whether the peer has taken nothing for too long: no slice, nor anything else that it acknowledged.

        What the transport and the kernel hold may take longer than that on a slow line, although all is well.
        """
        now, timeout_s, blocked_since_s = self._now(), self._policy.stall_timeout_s, self.blocked_since_s
        if timeout_s is None or blocked_since_s is None or now < self.stalled_at_s:
            return False
        found = self._delivery()
        if found is None:
            self._taken = blocked_since_s, -1
        elif self._taken is None or found.acknowledged_bytes - self._taken[1] >= PROGRESS_BYTES:
            self._taken = now, found.acknowledged_bytes
        return now >= self.stalled_at_s

    def position(self) -> tuple[int, int] | None:
        """What was acknowledged up to now, and will be when all is that was handed over; None if that is unknown."""
        found = self._delivery()
        if found is None:
            return None
        below, ahead_bytes = socket_transport(self._transport), found.outstanding_bytes
        if isinstance(below, Connection):
            ahead_bytes += unsent_bytes(below)
        return found.acknowledged_bytes, found.acknowledged_bytes + ahead_bytes

    # IPushProducer: the transport calls these.

    def pauseProducing(self) -> None:
        """The transport holds enough. Called again for each write while it does."""
        if self.blocked_since_s is None:
            self.blocked_since_s = self._now()
            self._taken = None
            if not self._pumping:
                self._measured_since_s = self.blocked_since_s
                # Of a line that is slow already the transport holds too little to measure it by.
                self._measured_bytes = (self._transport_bytes or SLICE_BYTES) if self._link is None else 0

    def resumeProducing(self) -> None:
        """The transport has handed everything to the operating system."""
        self._transport_bytes = 0
        if self._when_written is not None:
            self._end_writing()
            return
        if self.blocked_since_s is None:
            return
        self._measure()
        self.blocked_since_s = None
        self._resume()

    def _resume(self) -> None:
        self._measured_since_s, self._measured_bytes = self._now(), 0
        self._pumping = True
        queue = self._queue
        self._pump()
        self._pumping = False
        emptied, queue.emptied = queue.emptied, []
        if not (queue.size or self.blocked):
            self._queue = _NOTHING
        for source in emptied:
            if not self._queue.waiting(source):
                self._source_drained(source)
        if not (self._queue.size or self.blocked):
            self._drained()

    def stopProducing(self) -> None:
        """The connection is lost; whoever fed this outbox learns it elsewhere."""
        self.clear()
        self._postponed = b""
        self.blocked_since_s = self._socket = self._when_written = None
