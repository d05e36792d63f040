"""Frames in bulk: prepared blocks, what arrives, and how much is sent. PURE. Sizes are bytes, times seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Final

from tests.support.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, frame

__all__ = ["BLOCK_BYTES", "Block", "Inbox", "OutOfStep", "Share", "payload"]

BLOCK_BYTES: Final = 1 << 17
"""How large a block of prepared frames is at least."""


class OutOfStep(Exception):
    """What a server has sent is no frame that it may send."""


def payload(size_bytes: int) -> bytes:
    """Return a JSON text of exactly this size, at least 12."""
    return b'{"data":"%s"}' % (b"x" * (size_bytes - 11))


def envelope(conn_id: str, data: bytes) -> bytes:
    """Return the envelope that delivers a frame to a phone."""
    return b'{"conn_id":%s,"frame":%s}' % (json.dumps(conn_id).encode(), data)


class Block:
    """Frames of one size by turns, masked and joined once, from which any number can be taken in order."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        frames = [frame(data) for data in payloads]
        self.frame_bytes = len(frames[0])
        if any(len(one) != self.frame_bytes for one in frames):
            raise ValueError("frames of several sizes")
        count = -(-BLOCK_BYTES // self.frame_bytes)
        self._count = count + -count % len(frames)
        self._data = memoryview(b"".join(islice(cycle(frames), self._count)))
        self._next = 0

    def take(self, most: int) -> tuple[memoryview, int]:
        """Return the next frames, at most so many, and how many they are: fewer at the end of the block."""
        count = min(most, self._count - self._next)
        since = self._next * self.frame_bytes
        self._next = (self._next + count) % self._count
        return self._data[since : since + count * self.frame_bytes], count


class Inbox:
    """Walks through what a server sends, without looking into texts, but for the first ``wanted`` ones, which it keeps.

    ``pinged`` is called with what a ping says.
    """

    def __init__(self, pinged: Callable[[bytes], object], wanted: int = 0) -> None:
        self.texts = 0
        self.size_bytes = 0
        self.is_closed = False
        self.kept: list[bytes] = []
        self._pinged = pinged
        self._wanted = wanted
        self._skip = 0
        self._rest = b""
        self._is_inside = False  # a message that comes in parts, as long ones do for a slow peer

    def feed(self, data: bytes) -> None:
        """Take what has arrived, in any pieces. Raises `OutOfStep`."""
        self.size_bytes += len(data)
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        data, self._skip = self._rest + data[self._skip :], 0
        at, end = 0, len(data)
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            start = at + 2
            if size > 125:
                start += 2 if size == 126 else 8
                if start > end:
                    break
                size = int.from_bytes(data[at + 2 : start], "big")
            self._check(first)
            if first & 0x7F > TEXT or (first == 0x80 | TEXT and len(self.kept) < self._wanted):
                if start + size > end:
                    break
                self._take(first & 0x7F, data[start : start + size])
            if first & 0x7F <= TEXT:
                self._is_inside = first < 0x80
                self.texts += not self._is_inside
            at = start + size
        self._skip, self._rest = max(0, at - end), data[at:]

    def _check(self, first: int) -> None:
        """Raise `OutOfStep` if no frame may begin so now: a text, or a part of one, a ping, a close, or a pong.

        The relay sends a pong without a ping to see whether a peer is still there (RFC 6455 section 5.5.3).
        """
        parts = (CONTINUATION, 0x80 | CONTINUATION) if self._is_inside else (TEXT, 0x80 | TEXT)
        if first not in (*parts, 0x80 | PING, 0x80 | PONG, 0x80 | CLOSE):
            raise OutOfStep(f"a frame begins with {first:#x}{' inside a message' * self._is_inside}")

    def _take(self, opcode: int, data: bytes) -> None:
        if opcode == TEXT:
            self.kept.append(data)
        elif opcode == PING:
            self._pinged(data)
        elif opcode == CLOSE:
            self.is_closed = True


class Share:
    """Finds the rate at which instances use a share ``target`` of the processor, by what they used at the last rate.

    Rates are multiples of a base rate. Each step changes it by at most a half, so a fault that keeps instances from
    working for some seconds does not lead to a flood afterwards.
    """

    LEAST: Final = 0.05
    MOST: Final = 50.0
    STEP: Final = 1.5

    def __init__(self, target: float) -> None:
        self.target = target
        self.rate = 1.0

    def next(self, used: float) -> float:
        """Return the next rate, after a while in which ``used`` of the processor was used."""
        factor = self.target / max(used, 1e-6)
        # Not all of the way each time: what is used does not only depend on this rate.
        wanted = self.rate * min(self.STEP, max(1 / self.STEP, factor)) ** 0.7
        self.rate = min(self.MOST, max(self.LEAST, wanted))
        return self.rate
