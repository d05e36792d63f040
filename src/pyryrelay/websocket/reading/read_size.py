"""How much is read at once from a peer: as much as takes a bounded time to process.

A turn of the reactor reads from every peer that has sent something, so all of them wait while one chunk is processed.
Ten thousand tiny fragments take a hundred times as long as one message of the same size. Therefore less is read at once
from a peer whose bytes are expensive, and more again once they are cheap.

A peer that streams while no other peer does is read *wide*: several times as much at once, because each turn and each
write to a sink costs as much as some dozen frames. No other peer waits then, but such a chunk may turn out to be
expensive. So wide reading takes a long series of cheap chunks, is limited to one peer for each `WideReadSlot`, and ends
with the first chunk that is expensive, or before which other peers were served. It also ends as soon as any peer is
sent more than it takes.

What a chunk costs is known only afterwards. The number of frames that are taken in one turn bounds how long others wait
until then (`pyryrelay.websocket.frames.reader`).

Times are seconds of a high-resolution clock, sizes are bytes.
"""

from __future__ import annotations

from math import inf
from typing import Final

from twisted.internet.tcp import Connection

from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.runtime.twisted_internals import set_read_bytes

__all__ = [
    "EXPENSIVE_S",
    "FIRST_READ_BYTES",
    "LEAST_READ_BYTES",
    "MOST_READ_BYTES",
    "WIDE_READ_BYTES",
    "ReadSize",
    "WideReadSlot",
]

EXPENSIVE_S, CHEAP_S = 0.002, 0.0008
"""What a chunk may take, and what a chunk takes after which twice as much is read."""
LEAST_READ_BYTES: Final = 4096
FIRST_READ_BYTES: Final = 16384
"""Read at once from a new peer."""
MOST_READ_BYTES: Final = 65536
"""What Twisted reads at once by default."""
WIDE_READ_BYTES: Final = 262144

WIDE_AFTER: Final = 32
"""How many cheap chunks of full length in a row it takes to read wide."""
ALONE_S: Final = 0.0005
"""A peer that is read from again within this time had the whole turn for itself."""


class WideReadSlot:
    """Holds the one peer that is read wide. Applications whose connections send to each other share it."""

    holder: ReadSize | None = None

    def narrow(self) -> None:
        """End wide reading, because a peer does not keep up with what it is sent."""
        if self.holder is not None:
            self.holder._narrow(MOST_READ_BYTES)


class ReadSize:
    """How much is read at once on one connection.

    The connection records each chunk that was expensive or has at least ``recorded_bytes``. A chunk of ``full_bytes``
    is all that was read at once. Below TLS, Twisted's number of bytes also says when the transport is full, so it is
    not changed there, nor for transports that are not Twisted's.
    """

    __slots__ = ("_ended_s", "_streak", "_transport", "_wide_slot", "full_bytes", "recorded_bytes")

    def __init__(self, transport: IStreamTransport, wide_slot: WideReadSlot) -> None:
        """Begin with the size for a new peer."""
        self._transport = transport if isinstance(transport, Connection) else None
        self._wide_slot = wide_slot
        self._streak = 0
        self._ended_s = -inf
        self._read(FIRST_READ_BYTES)

    def _read(self, size: int) -> None:
        self.full_bytes = size
        self.recorded_bytes = min(size, MOST_READ_BYTES)
        if self._transport is not None:
            set_read_bytes(self._transport, size)

    def record(self, began_s: float, ended_s: float) -> None:
        """Record that a chunk was processed between ``began_s`` and ``ended_s``."""
        spent_s, alone = ended_s - began_s, began_s - self._ended_s < ALONE_S
        self._ended_s = ended_s
        size = self.full_bytes
        if spent_s > EXPENSIVE_S:
            self._narrow(max(LEAST_READ_BYTES, min(size, MOST_READ_BYTES) // 2))
        elif size < MOST_READ_BYTES:
            if spent_s < CHEAP_S:
                self._read(2 * size)
        elif not alone:
            self._narrow(MOST_READ_BYTES)
        elif spent_s >= CHEAP_S:
            self._streak = 0
        elif size < WIDE_READ_BYTES and self._transport is not None:
            self._streak += 1
            if self._streak == WIDE_AFTER:
                self._widen(2 * size)

    def _narrow(self, size: int) -> None:
        self._streak = 0
        if self._wide_slot.holder is self:
            self._wide_slot.holder = None
        self._read(size)

    def _widen(self, size: int) -> None:
        """Take the slot from its present holder, which is not being read from now."""
        self._wide_slot.narrow()
        self._streak = 0
        self._wide_slot.holder = self
        self._read(size)

    def end(self) -> None:
        """End wide reading, because the connection is lost."""
        self._narrow(LEAST_READ_BYTES)
