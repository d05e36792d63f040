"""How much is read at once from a peer: as much as takes a bounded time.

A turn of the reactor reads from everybody who has sent something, so what one chunk costs is how long others wait for
each such peer: ten thousand tiny fragments cost a hundred times as much as one message of the same size. So less is
read at once from a peer whose bytes are dear, and more again once they are not.

A peer that streams while nobody else does is read *wide*: several times as much at once, because each turn and each
write to a sink costs as much as some dozen frames. Nobody waits then; but such a chunk may turn out to be dear. So wide
reading takes a long streak of cheap chunks, it is one peer's at a time for each `WideReadSlot`, and it ends with the
first chunk that is dear, or before which others had their turn: whoever falls silent has one chunk left. It also ends
as soon as anybody is sent more than he takes.

How dear a chunk was turns out too late for those who wait meanwhile. What bounds it is how many frames of one are read
in a turn (`pyryrelay.websocket.frames.reader`).

Times are seconds of a fine clock, sizes are bytes.
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
"""What a chunk may take, and what one takes that may be twice as long the next time."""
LEAST_READ_BYTES: Final = 4096
FIRST_READ_BYTES: Final = 16384
"""From a stranger."""
MOST_READ_BYTES: Final = 65536
"""What Twisted reads."""
WIDE_READ_BYTES: Final = 262144

WIDE_AFTER: Final = 32
"""Cheap chunks in a row, each as long as it may be."""
ALONE_S: Final = 0.0005
"""Who is read from again so soon had all of the turn."""


class WideReadSlot:
    """The place of the one who is read wide. All who may send to each other share it."""

    holder: ReadSize | None = None

    def narrow(self) -> None:
        """Somebody does not keep up with what he is sent: no more than usual is read from anybody for now."""
        if self.holder is not None:
            self.holder._narrow(MOST_READ_BYTES)


class ReadSize:
    """The pace of one connection, which tells it about each chunk that was dear or has `telling_bytes`.

    Below TLS the same number says when the transport is full, so there it stays as it is, and so it does with
    transports that are not Twisted's.
    """

    __slots__ = ("_ended_s", "_streak", "_transport", "_wide_slot", "full_bytes", "telling_bytes")

    def __init__(self, transport: IStreamTransport, wide_slot: WideReadSlot) -> None:
        """Begin with what a stranger gets."""
        self._transport = transport if isinstance(transport, Connection) else None
        self._wide_slot = wide_slot
        self._streak = 0
        self._ended_s = -inf
        self._read(FIRST_READ_BYTES)

    def _read(self, size: int) -> None:
        self.full_bytes = size
        self.telling_bytes = min(size, MOST_READ_BYTES)
        if self._transport is not None:
            set_read_bytes(self._transport, size)

    def chunk(self, began_s: float, ended_s: float) -> None:
        """A chunk was dealt with from then to then."""
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
        """Take the seat from whoever has it: that one is not reading now."""
        self._wide_slot.narrow()
        self._streak = 0
        self._wide_slot.holder = self
        self._read(size)

    def end(self) -> None:
        """The connection is lost."""
        self._narrow(LEAST_READ_BYTES)
