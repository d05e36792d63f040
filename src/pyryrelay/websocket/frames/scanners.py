"""PURE: the fast paths of the frame reader, and how its four scanners divide the work.

All four read the grammar of RFC 6455 section 5.2 (frame header, mask, payload) and section 5.5 (control frames). The
complete one is `FrameReader._take_one` in `pyryrelay.websocket.frames.reader`: it takes any one frame, or what there is
of it, and is the only one that judges headers, keeps fragments and reports a `Stop`. The three here take runs of the
frames that nearly all peers send, 4 to 7 times as fast, and leave everything else to it:

| scanner | frames that it takes | why it exists |
|---|---|---|
| `_take_short_texts` | whole text messages of at most 125 bytes | one unpacking call replaces all length arithmetic |
| `_take_plain` | whole messages in one frame, whole pings and pongs | no call but unmasking for a frame of any size |
| `_skip_plain` | any whole data, ping or pong frame of at most 125 bytes | while closing, floods must not cost more |
| `_take_one` | one frame of any kind, whole or not | correctness |

They differ in what they accept, so one function with parameters would be as slow as the slowest of them.

Invariant: all four agree. A frame that a fast scanner takes has the same effect as if `_take_one` had taken it, and a
fast scanner never moves past a frame that it does not take: it returns the position of that frame, and `_take_one`
sees it from its first byte. Hence what comes of a stream does not depend on how the network cut it, since a frame that
arrives in pieces always goes through `_take_one`. tests/websocket/frames/test_scanners.py compares the scanners,
test_reader.py cuts streams anywhere, and test_against_autobahn.py compares with Autobahn's parser.
"""

from __future__ import annotations

import struct
from itertools import repeat
from typing import Final

from pyryrelay.websocket.frames.header import (
    BINARY,
    MASKED,
    MASKED_16_BIT,
    MASKED_64_BIT,
    MAX_7_BIT,
    MAX_16_BIT,
    PING,
    PONG,
    SHORTEST,
    TEXT,
)

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover  # a platform without its C extension
    from websockets.utils import apply_mask

__all__ = ["LARGE", "Scanners", "apply_mask"]

_WHOLE_MESSAGE: Final = (TEXT, BINARY)
_PING_PONG: Final = (PING, PONG)
_DISCARDED: Final = (TEXT, PING, BINARY, PONG, 0x01, 0x00, 0x80, 0x02)
_UNPACK_SHORT: Final = [struct.Struct(f"4s{size}s").unpack_from for size in range(MAX_7_BIT + 1)]
"""For each length of a short payload: mask and payload in one call."""
LARGE: Final = 4096
"""A payload that takes longer to copy than to make a view of, and that may have an object of its own."""


class Scanners:
    """The three fast scanners, and what they add to. See the module's text, and `FrameReader` for the attributes.

    Each takes ``data`` and a position that is the start of a frame, outside a fragmented message (`_skip_plain`: also
    inside one), and returns the position of the first frame that it did not take.
    """

    __slots__ = ("_max_bytes", "frames", "messages", "most_frames", "pings", "pongs")

    messages: list[tuple[bytes, bool]]
    pings: list[bytes]
    pongs: list[bytes]
    frames: int
    most_frames: int
    _max_bytes: int

    def _take_plain(self, data: bytes | bytearray, at: int) -> int:
        """Take whole text, binary, ping and pong frames.

        Nearly all frames of all peers go through here: plain code, without any call that can be spared.
        """
        at = self._take_short_texts(data, at) if data[at] == TEXT and self._max_bytes >= MAX_7_BIT else at
        messages, max_bytes, size, frames = self.messages, self._max_bytes, len(data), self.frames
        most_frames = self.most_frames
        while size - at >= SHORTEST and frames < most_frames:
            first, second = data[at], data[at + 1]
            if MASKED <= second < MASKED_16_BIT:
                start = at + 6
                end = start + second - MASKED
            elif second == MASKED_16_BIT and size - at >= 8:
                start = at + 8
                end = start + (data[at + 2] << 8 | data[at + 3])
                if end - start <= MAX_7_BIT:
                    break
            elif second == MASKED_64_BIT and size - at >= 14:
                start = at + 14
                end = start + int.from_bytes(data[at + 2 : at + 10], "big")
                if end - start <= MAX_16_BIT:
                    break
            else:
                break
            if end > size or end - start > max_bytes:
                break
            if first in _WHOLE_MESSAGE:
                masked = data[start:end] if end - start < LARGE else memoryview(data)[start:end]
                payload = apply_mask(masked, data[start - 4 : start])
                if first == TEXT and not payload.isascii() and not _is_utf8(payload):
                    break
                messages.append((payload, first == BINARY))
            elif first in _PING_PONG and second < MASKED_16_BIT:
                payload = apply_mask(data[start:end], data[start - 4 : start]) if start < end else b""
                (self.pings if first == PING else self.pongs).append(payload)
            else:
                break
            frames += 1
            at = end
        self.frames = frames
        return at

    def _take_short_texts(self, data: bytes | bytearray, at: int) -> int:
        """Take whole text frames of at most 125 bytes.

        Most chunks hold nothing else, and here a frame costs three calls. The unpacker finds out which frames are
        whole: it fails once, at the end of the chunk.
        """
        messages, before = self.messages, len(self.messages)
        try:
            for _ in repeat(None, self.most_frames):
                second = data[at + 1]
                if data[at] != TEXT or not MASKED <= second < MASKED_16_BIT:
                    break
                mask, masked = _UNPACK_SHORT[second - MASKED](data, at + 2)
                payload = apply_mask(masked, mask)
                if not payload.isascii() and not _is_utf8(payload):
                    break
                messages.append((payload, False))
                at += second - MASKED + SHORTEST
        except (IndexError, struct.error):
            pass
        self.frames += len(messages) - before
        return at

    def _skip_plain(self, data: bytes | bytearray, at: int) -> int:
        """Skip whole frames of at most 125 bytes that no longer matter.

        A peer that floods while it is being closed must not cost more than before.
        """
        size, frames = len(data), self.frames
        for _ in repeat(None, max(0, self.most_frames - frames)):
            if size - at < SHORTEST or data[at] not in _DISCARDED or not MASKED <= data[at + 1] < MASKED_16_BIT:
                break
            end = at + SHORTEST + data[at + 1] - MASKED
            if end > size:
                break
            frames += 1
            at = end
        self.frames = frames
        return at


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
