"""PURE: the frame reader of connections that have agreed to compress messages (RFC 7692).

Invariants: those of `pyryrelay.websocket.frames.reader` hold for inflated messages, but texts are checked to be UTF-8
when they are whole. A message is refused as soon as
more of it than the largest message is inflated, and one call of `read` inflates no more than `READ_BYTES` and one
message. Sizes are bytes.
"""

from __future__ import annotations

import zlib
from typing import Final

from pyryrelay.close_codes import CloseCode
from pyryrelay.websocket.frames.deflate import Inflater, TooLongError
from pyryrelay.websocket.frames.header import RSV, RSV1
from pyryrelay.websocket.frames.negotiation import Compression
from pyryrelay.websocket.frames.reader import Breach, FrameReader, Stop
from pyryrelay.websocket.frames.scanners import apply_mask

__all__ = ["READ_BYTES", "DeflatedFrameReader"]

READ_BYTES: Final = 256 * 1024
"""How much one call of `read` inflates, from how little it may be. The rest is kept, as for ``most_frames``."""


class DeflatedFrameReader(FrameReader):
    """A `FrameReader` that takes compressed messages, too. The fast scanners leave those to `_take_one`."""

    __slots__ = ("_begins_deflated", "_inflated", "_inflater", "_is_deflated", "_read_bytes")

    def __init__(self, max_bytes: int, max_fragments: int, agreed: Compression) -> None:
        """Allow a message ``max_bytes`` when it is inflated, in at most ``max_fragments`` frames."""
        super().__init__(max_bytes, max_fragments)
        self._inflater = Inflater(agreed)
        self._begins_deflated = False  # the frame whose header was judged
        self._is_deflated = False  # the message that has begun
        self._inflated = bytearray()  # what there is of it, if it came in several pieces
        self._read_bytes = 0

    def read(self, data: bytes) -> Stop | None:
        """See `FrameReader.read`."""
        self._read_bytes = 0
        return super().read(data)

    def _take_one(self, data: bytes | bytearray, at: int) -> tuple[int, Stop | None]:
        if self._read_bytes >= READ_BYTES and not self.discarding:
            self.is_full = True
            return at, None
        return super()._take_one(data, at)

    def _judge(self, data: bytes | bytearray, at: int, header: int) -> tuple[int, int, bool]:
        first = data[at]
        # Only the first frame of a message may have the bit, and no control frame (RFC 7692 section 6.1).
        self._begins_deflated = first & RSV == RSV1 and first & 0x0F in (1, 2)
        if not self._begins_deflated:
            return super()._judge(data, at, header)
        return super()._judge(bytes((first & ~RSV1,)) + data[at + 1 : at + header], 0, header)

    def _over_limit(self, length: int) -> Breach | None:
        # What cannot be compressed gets a little longer. What it holds is measured as it is inflated.
        extra = self._max_bytes // 256 + 64 if self._begins_deflated or self._is_deflated else 0
        return super()._over_limit(max(0, length - extra))

    def _begin(self, first: int, length: int) -> None:
        if not self._fragments:
            self._is_deflated = self._begins_deflated
        super()._begin(first, length)

    def _add(self, masked: bytes | memoryview, mask: bytes | bytearray) -> Breach | None:
        if not self._is_deflated:
            return super()._add(masked, mask)
        payload = apply_mask(masked, mask)
        is_whole = self._is_last and not self._left
        found = self._inflate(payload, is_whole=is_whole)
        if is_whole and not isinstance(found, Breach):
            found = bytes(self._inflated + found) if self._inflated else found
            # Not before: inflating a longer piece at once must not have another outcome.
            if not self._is_binary and (fault := self._fault(found)) is not None:
                found = Breach(CloseCode.INVALID_PAYLOAD, fault)
        if isinstance(found, Breach):
            self.frames += 1
            self._discard()
            return found
        if self._left:
            turn = len(payload) % 4
            self._mask = mask[turn:] + mask[:turn] if turn else mask
        else:
            self.frames += 1
        if is_whole:
            self.messages.append((found, self._is_binary))
            self._end_message()
        else:
            self._inflated += found
        return None

    def _inflate(self, payload: bytes, *, is_whole: bool) -> bytes | Breach:
        """Return what the next bytes of a message hold, or what is wrong with them."""
        most = self._max_bytes - len(self._inflated)
        try:
            found = self._inflater.inflate(payload, most, is_last=is_whole)
        except TooLongError:
            words = f"received WebSocket message exceeds payload limit of {self._max_bytes} octets"
            return Breach(CloseCode.MESSAGE_TOO_BIG, words)
        except zlib.error:
            return Breach(CloseCode.INVALID_PAYLOAD, "invalid compressed data")
        self._read_bytes += len(found)
        return found

    def _end_message(self) -> None:
        super()._end_message()
        self._inflated = bytearray()
        self._is_deflated = False
