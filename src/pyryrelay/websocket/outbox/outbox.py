"""Backpressure: an outbox between the sources of a peer's messages and the peer's transport.

Once more than 64 KiB wait in the transport, frames wait here, in a queue for each source, and sources take turns
(`pyryrelay.websocket.outbox.send_queue`). As the transport drains, it is given slices of about 64 KiB, so that every
slice shows that the peer is alive. Limits apply to what waits here. `Outbox.write_now` sends control frames between any
two writes.

On a slow link (`pyryrelay.websocket.outbox.link_speed`) slices are smaller, frames longer than a slice are cut into
fragments, and transport and kernel hold little, because neither a control frame nor another source can overtake what
they hold.

If the transport is a plain socket and holds nothing, data is given to the socket at once. Most writes are taken whole,
and need no turn of the reactor.

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
from pyryrelay.runtime.transports import IStreamTransport, end_writing, socket_transport
from pyryrelay.runtime.twisted_internals import unsent_bytes
from pyryrelay.websocket.frames.writer import SLICE_BYTES, Encoded
from pyryrelay.websocket.outbox.half_close import end_socket_writing
from pyryrelay.websocket.outbox.link_speed import FAST_BYTES_PER_S, LinkSpeed
from pyryrelay.websocket.outbox.send_queue import SendQueue

UNCUT_BYTES: Final = 2 * SLICE_BYTES
"""The longest write that is not cut if the speed of the link is unknown. Longer ones are, to `FIRST_SLICE_BYTES`."""
FIRST_SLICE_BYTES: Final = 16384
NEAR_S: Final = 0.002
"""A slow link does not carry the smallest packets in such a round trip. UNIX-domain sockets have no round trip."""
PROGRESS_BYTES: Final = 4096
"""How much a peer must take to get as much time again. Otherwise one byte a minute would do."""
LOOK_S: Final = 1.0
"""How long a transport is blocked before it is recorded how much the peer has taken by then."""


def _send(plain: socket.socket, data: bytes) -> int:
    """Send what a socket takes at once, and return how much that was. The transport detects errors itself."""
    try:
        return plain.send(data)
    except OSError:
        return 0


def _ignore_source(source: Hashable) -> None:
    """Do nothing: the default for ``source_drained``."""


_NOTHING: Final = SendQueue()
"""The queue of all outboxes in which nothing waits. Nothing is ever put into it."""


@implementer(IPushProducer)
class Outbox:
    """The producer of one transport, for any number of sources. Nothing else may write to the transport, or have done.

    It registers itself with its transport: with a plain socket as a pull producer, because that one is called whenever
    the transport is empty; with other transports as a streaming one. Call `finish` before `loseConnection`: with a pull
    producer, Twisted would wait for more data for ever. ``drained`` is called whenever everything that had to wait has
    been handed over, after ``source_drained`` was called for each source whose frames had to wait and no longer do.
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
        """The speed of the peer's link, if it was found to be slow."""
        self._kernel_bytes: int | None = None
        self._measured_since_s = 0.0
        self._measured_bytes = 0
        """What was handed over since then while more was waiting; 0 if that says nothing about the speed."""
        self._pumping = False
        self._uncut_bytes = UNCUT_BYTES
        """The longest write that is not cut."""
        self.blocked_since_s: float | None = None
        """When the transport last stopped taking data; None while it takes data."""
        self._taken: tuple[float, int] | None = None
        """When the peer was last found to have taken data, and how much by then; -1 if that is unknown."""
        self._socket: socket.socket | None = None
        self._transport_bytes = 0
        """Upper bound of what a plain socket's transport holds."""
        self._postponed = b""
        self._when_written: Callable[[], None] | None = None
        is_plain = isinstance(transport, Connection)
        transport.registerProducer(self, not is_plain)
        self._socket = transport.getHandle() if is_plain else None  # type: ignore[attr-defined]

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait here."""
        return self._queue.size

    def waiting_of(self, source: Hashable) -> int:
        """Return how many bytes of one source wait here."""
        return self._queue.waiting(source)

    @property
    def buffered_bytes(self) -> int:
        """About how much waits in this process; 0 while the transport keeps up."""
        return 0 if self.blocked_since_s is None else self._handed_over_bytes + self._queue.size

    @property
    def blocked(self) -> bool:
        """Whether the transport takes no data for now."""
        return self.blocked_since_s is not None

    @property
    def empty(self) -> bool:
        """Whether nothing waits here. The transport may still hold a slice."""
        return not self._queue.size

    def write(self, slices: Sequence[Encoded], source: Hashable = None) -> bool:
        """Send whole frames in order. Returns False, and clears the outbox, if that exceeds the policy's limits."""
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
        """Send whole control frames before the data that waits here."""
        self._hand_over(data)

    def postpone(self, data: bytes) -> None:
        """Send this, and everything that comes after it, at the next `flush`."""
        self._postponed += data

    def flush(self) -> None:
        """Send what was postponed."""
        data, self._postponed = self._postponed, b""
        if data:
            self._hand_over(data)

    def finish(self, written: Callable[[], None]) -> None:
        """End the write side behind what was handed over, and forget what waits. Write nothing afterwards.

        ``written`` is called once the transport has been told to end it, which is when it takes data again.
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
        """Give the transport a slice. Returns True if it takes another one."""
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

    # How fast the link is

    def _measure(self) -> None:
        """Find out whether the link is slow, now that the transport has taken all that it was given."""
        elapsed_s, size = self._now() - self._measured_since_s, self._measured_bytes
        link = self._link
        if not size:
            return
        if link is not None:
            link.record(size, elapsed_s)
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
        """Tell by its round trip whether an unmeasured link cannot be slow. Then nothing is cut for it."""
        handle = self._handle() if self._link is None else None
        if handle is None:
            return False
        found = delivery(handle)
        if found is not None and found.round_trip_s > NEAR_S:
            return False
        self._uncut_bytes = sys.maxsize
        return True

    def _limit_kernel(self, size: int | None) -> None:
        """Limit what the kernel holds. Small changes are not worth a call."""
        before = self._kernel_bytes
        if size == before or (size and before and abs(size - before) < before // 4):
            return
        handle = self._handle()
        if handle is not None:
            self._kernel_bytes = size
            limit_send_buffer(handle, size)

    def _handle(self) -> socket.socket | None:
        """Return the socket, also below TLS; None if there is none, or none any more."""
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
        """When to call `has_stalled`; `math.inf` while the peer keeps up, or if it may take any time."""
        timeout_s, blocked_since_s = self._policy.stall_timeout_s, self.blocked_since_s
        if timeout_s is None or blocked_since_s is None:
            return inf
        if self._taken is not None:
            return self._taken[0] + timeout_s
        return blocked_since_s + (LOOK_S if INHERITS_OPTIONS and self._handle() is not None else timeout_s)

    def has_stalled(self) -> bool:
        """Tell whether the peer has taken nothing for too long: no slice, and nothing else that it has acknowledged.

        On a slow link, sending what the transport and the kernel hold may take longer than that without any fault.
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
        """Return what was acknowledged, and what will be once everything handed over is; None if that is unknown."""
        found = self._delivery()
        if found is None:
            return None
        below, ahead_bytes = socket_transport(self._transport), found.outstanding_bytes
        if isinstance(below, Connection):
            ahead_bytes += unsent_bytes(below)
        return found.acknowledged_bytes, found.acknowledged_bytes + ahead_bytes

    # IPushProducer: the transport calls these.

    def pauseProducing(self) -> None:
        """Stop handing over, because the transport holds enough. It calls this again for each write."""
        if self.blocked_since_s is None:
            self.blocked_since_s = self._now()
            self._taken = None
            if not self._pumping:
                self._measured_since_s = self.blocked_since_s
                # For a slow link the transport holds too little to measure the speed by it.
                self._measured_bytes = (self._transport_bytes or SLICE_BYTES) if self._link is None else 0

    def resumeProducing(self) -> None:
        """Continue, because the transport has handed everything to the operating system."""
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
        """Forget everything, because the connection is lost. The sources are told elsewhere."""
        self.clear()
        self._postponed = b""
        self.blocked_since_s = self._socket = self._when_written = None
