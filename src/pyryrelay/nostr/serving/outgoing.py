"""What waits for one peer, and the limits of it (spec section 13).

A peer that keeps up is sent everything at once. For one that does not, messages wait here by reference, so an event
that waits for many peers is in memory once, and what is queued for a subscription that ends is dropped. Once the
peer's own outbox is empty again, the next messages go there, about `SLICE_BYTES` at a time.

Invariants: messages of one peer stay in order; `Outgoing.waiting_bytes` and `Outboxes.waiting_bytes` are exact; nothing
of a stream is sent after `Outgoing.drop`. What was dropped takes no more memory than what waits. Sizes are bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from pyryrelay.close_codes import CloseCode
from pyryrelay.nostr.messages import EVENT_AFTER, SENT_VERBS
from pyryrelay.protocol import Peer

SLICE_BYTES: Final = 65_536
OVERHEAD_BYTES: Final = 64
"""What a message that waits takes beyond its bytes."""
LOW_WATER_BYTES: Final = 32_768
"""Below this a scan goes on."""
TOO_SLOW: Final = "reads too slowly"

_HEAD_BYTES: Final = 5
_VERBS: Final = {f'["{verb}"'.encode()[:_HEAD_BYTES]: verb for verb in SENT_VERBS}
"""The verbs of messages by their first bytes."""


class Stream:
    """What is sent under one subscription id. ``before`` precedes each event of it on the wire."""

    __slots__ = ("before", "is_dropped", "queued", "queued_bytes")

    def __init__(self, before: bytes) -> None:
        self.before = before
        self.queued = 0
        """How many entries of it wait."""
        self.queued_bytes = 0
        self.is_dropped = False


_Entry = tuple[Stream | None, bytes, bytes]
"""The stream of a message, the bytes of an event or of the whole message, and what precedes an event (else b"")."""


class Outboxes:
    """All that waits for all peers. ``max_bytes`` bounds one peer's, ``max_total_bytes`` all of it; None is off."""

    __slots__ = ("_filled", "max_bytes", "max_total_bytes", "sent", "slow_closed", "waiting_bytes")

    def __init__(self, slow_closed: Callable[[Outgoing], None], sent: dict[str, int]) -> None:
        """Start without limits.

        ``slow_closed`` is told of each peer that is closed for being slow. ``sent`` is where messages are counted by
        their verb.
        """
        self.sent = sent
        self.max_bytes: int | None = None
        self.max_total_bytes: int | None = None
        self.waiting_bytes = 0
        self.slow_closed = slow_closed
        self._filled: set[Outgoing] = set()

    def changed(self, outgoing: Outgoing, size: int) -> None:
        """Note that an outbox has grown or shrunk, and close the fullest ones if there is too much."""
        self.waiting_bytes += size
        if outgoing.waiting_bytes or outgoing.held_bytes:
            self._filled.add(outgoing)
        else:
            self._filled.discard(outgoing)
        limit = self.max_total_bytes
        while limit is not None and self.waiting_bytes > limit and self._filled:
            max(self._filled, key=_waiting).close_slow()


class Outgoing:
    """The messages that wait for one peer. ``on_low`` is called when less than `LOW_WATER_BYTES` wait again.

    ``held_bytes`` is what waits elsewhere for the peer until something else was sent; see `hold`.
    """

    __slots__ = (
        "_dropped_bytes",
        "_is_sending",
        "_outboxes",
        "_queue",
        "held_bytes",
        "is_closed",
        "on_low",
        "peer",
        "waiting_bytes",
    )

    def __init__(self, peer: Peer, outboxes: Outboxes) -> None:
        self.peer = peer
        self._outboxes = outboxes
        self._queue: deque[_Entry] | None = None
        self._is_sending = False
        self._dropped_bytes = 0
        self.waiting_bytes = 0
        self.held_bytes = 0
        self.is_closed = False
        self.on_low: Callable[[], None] | None = None
        peer.on_drain = self._drained

    @property
    def unread_bytes(self) -> int:
        """About how much waits for the peer, here and in its connection."""
        return self.waiting_bytes + self.peer.buffered_bytes

    def send(self, messages: Sequence[bytes], stream: Stream | None = None) -> None:
        """Send whole messages, behind those that wait. With a stream they are dropped along with it."""
        sent = self._outboxes.sent
        for message in messages:
            verb = _VERBS.get(message[:_HEAD_BYTES])
            if verb is not None:
                sent[verb] += 1
        if self._queue is None and not self.peer.buffered_bytes:
            self.peer.send(messages)
        else:
            self._put_off(messages, stream, b"")

    def send_events(self, stream: Stream, events: Sequence[bytes]) -> None:
        """Send events, given as their JSON, under the id of a stream."""
        self._outboxes.sent["EVENT"] += len(events)
        if self._queue is None and not self.peer.buffered_bytes:
            self.peer.send(events, before=stream.before, after=EVENT_AFTER)
        else:
            self._put_off(events, stream, stream.before)

    def drop(self, stream: Stream) -> None:
        """Forget what waits of a stream, which is not used again.

        Looking through the queue for each stream would take long where there are many, so dropped entries stay in it
        until they are more than the others.
        """
        if self._queue is None or not stream.queued:
            return
        stream.is_dropped = True
        size, stream.queued, stream.queued_bytes = stream.queued_bytes, 0, 0
        self._dropped_bytes += size
        self._shrunk(size)

    def hold(self, size: int) -> None:
        """Count what is kept elsewhere for the peer; a negative size is no longer kept. May close the peer."""
        if not self.is_closed:
            self.held_bytes += size
            self._outboxes.changed(self, size)
            self._check_limit()

    def close(self, code: int, reason: str) -> None:
        """Close the peer; what waits here is dropped."""
        self.clear()
        self.peer.close(code, reason)

    def close_slow(self) -> None:
        """Close a peer that does not read what it is sent."""
        self._outboxes.slow_closed(self)
        self.close(CloseCode.POLICY_VIOLATION, TOO_SLOW)

    def clear(self) -> None:
        """Forget what waits, and take nothing more: the connection is over."""
        self.is_closed = True
        self._queue = None
        self.on_low = None
        size = self.waiting_bytes + self.held_bytes
        self.waiting_bytes = self.held_bytes = 0
        if size:
            self._outboxes.changed(self, -size)

    def _put_off(self, messages: Sequence[bytes], stream: Stream | None, before: bytes) -> None:
        if self.is_closed:
            return
        if self._queue is None:
            self._queue = deque()
        entries = [(stream, message, before) for message in messages]
        self._queue.extend(entries)
        size = sum(map(len, messages)) + (len(before) + OVERHEAD_BYTES) * len(entries)
        if stream is not None:
            stream.queued += len(entries)
            stream.queued_bytes += size
        self.waiting_bytes += size
        self._outboxes.changed(self, size)
        self._check_limit()

    def _check_limit(self) -> None:
        limit = self._outboxes.max_bytes
        if limit is not None and not self.is_closed and self.waiting_bytes + self.held_bytes > limit:
            self.close_slow()

    def _drained(self) -> None:
        """Give the peer what waits, until it does not keep up again."""
        if self._is_sending:
            return
        self._is_sending = True
        peer, sent_bytes = self.peer, 0
        while self._queue and not peer.buffered_bytes:
            sent_bytes += self._send_slice(self._queue)
        self._is_sending = False
        if not self._queue and not self.is_closed:
            self._queue = None
        self._shrunk(sent_bytes)

    def _send_slice(self, queue: deque[_Entry]) -> int:
        """Send the next messages that have the same stream, and return how much they counted."""
        stream, message, before = queue.popleft()
        size = _size((stream, message, before))
        if stream is not None and stream.is_dropped:
            self._dropped_bytes -= size
            return 0
        batch = [message]
        while queue and size < SLICE_BYTES:
            entry = queue[0]
            if entry[0] is not stream or entry[2] is not before:
                break
            queue.popleft()
            batch.append(entry[1])
            size += _size(entry)
        if stream is not None:
            stream.queued -= len(batch)
            stream.queued_bytes -= size
        self.peer.send(batch, before=before, after=EVENT_AFTER if before else b"")
        return size

    def _shrunk(self, size: int) -> None:
        if size and not self.is_closed:
            self.waiting_bytes -= size
            self._outboxes.changed(self, -size)
        if self._queue and self._dropped_bytes > self.waiting_bytes:
            self._queue = deque(entry for entry in self._queue if not (entry[0] and entry[0].is_dropped)) or None
            self._dropped_bytes = 0
        if self.on_low is not None and self.unread_bytes < LOW_WATER_BYTES:
            on_low, self.on_low = self.on_low, None
            on_low()


def _size(entry: _Entry) -> int:
    return len(entry[1]) + len(entry[2]) + OVERHEAD_BYTES


def _waiting(outgoing: Outgoing) -> int:
    return outgoing.waiting_bytes + outgoing.held_bytes
