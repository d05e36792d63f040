"""PURE: server frames as bytes (RFC 6455 section 5).

A server's frames are never masked, and this module does not fragment them, so a frame is a short header and the
payload. Sizes are bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, TypeAlias

from pyryrelay.websocket.frames.header import (
    BINARY,
    LENGTH_16_BIT,
    LENGTH_64_BIT,
    MAX_7_BIT,
    MAX_16_BIT,
    PONG,
    TEXT,
)

__all__ = ["SLICE_BYTES", "Encoded", "encode", "frame_head", "pongs"]

SLICE_BYTES: Final = 65536
"""About how much is handed to a transport at once."""

Encoded: TypeAlias = tuple[bytes, int]
"""Consecutive whole frames, and how many they are."""


def encode(
    payloads: Sequence[bytes], *, binary: bool = False, before: bytes = b"", after: bytes = b""
) -> list[Encoded]:
    """Encode each payload, between ``before`` and ``after``, as one unfragmented data frame; in slices of whole frames.

    A slice ends with the frame that takes it to `SLICE_BYTES`.
    """
    first, extra = BINARY if binary else TEXT, len(before) + len(after)
    if len(payloads) == 1:
        payload = payloads[0]
        return [(b"".join((frame_head(first, len(payload) + extra), before, payload, after)), 1)]
    sizes = list(map(len, payloads))
    if 0 < sum(sizes) + extra * len(sizes) <= SLICE_BYTES:
        return [(_join(first, payloads, sizes, before, after), len(sizes))]
    ends = list(accumulate(size + extra for size in sizes))
    slices, start, reached = [], 0, 0
    while start < len(sizes):
        stop = min(bisect_left(ends, reached + SLICE_BYTES, start) + 1, len(sizes))
        joined = _join(first, payloads[start:stop], sizes[start:stop], before, after)
        slices.append((joined, stop - start))
        start, reached = stop, ends[stop - 1]
    return slices


def _join(first: int, payloads: Sequence[bytes], sizes: Sequence[int], before: bytes, after: bytes) -> bytes:
    """Return consecutive frames; ``sizes`` are those of their payloads."""
    extra = len(before) + len(after)
    heads = {size: frame_head(first, size + extra) + before for size in set(sizes)}
    if len(heads) == 1 and not after:
        # Batches are often streams of equal frames, such as those of a camera or a microphone.
        (head,) = heads.values()
        return head.join([b"", *payloads])
    # Fill every other, or third, place at once, so that no frame needs a step of its own.
    stride = 3 if after else 2
    parts = [after] * (stride * len(sizes))
    parts[::stride] = map(heads.__getitem__, sizes)
    parts[1::stride] = payloads
    return b"".join(parts)


def pongs(payloads: Sequence[bytes]) -> bytes:
    """Return consecutive pong frames. No payload may be longer than 125 bytes."""
    return b"".join([_PONG_HEADS[len(payload)] + payload for payload in payloads])


_PONG_HEADS: Final = tuple(bytes((PONG, size)) for size in range(MAX_7_BIT + 1))


def frame_head(first: int, size: int) -> bytes:
    """Return the header of an unmasked frame with that first byte, for a payload of ``size`` bytes."""
    if size <= MAX_7_BIT:
        return bytes((first, size))
    if size <= MAX_16_BIT:
        return bytes((first, LENGTH_16_BIT, size >> 8, size & 0xFF))
    return bytes((first, LENGTH_64_BIT)) + size.to_bytes(8, "big")
