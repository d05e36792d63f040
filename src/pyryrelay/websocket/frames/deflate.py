"""PURE: compressed messages (permessage-deflate, RFC 7692 section 7.2), both directions.

Messages are inflated as they arrive, and never beyond the limit of a message: a few bytes may hold a thousand times as
many. What is sent is compressed with an object that belongs to the connection if that keeps its context, and otherwise
with one that all connections of the process share, which forgets everything after each message.

Without a context, a message is put together of parts: ``before`` and ``after`` are not compressed, and the payload
between them is compressed once for all peers to which it is sent in a row. Sizes are bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, TypeAlias

from pyryrelay.websocket.frames.header import BINARY, RSV1, TEXT
from pyryrelay.websocket.frames.negotiation import Compression
from pyryrelay.websocket.frames.writer import SLICE_BYTES, Encoded, frame_head

__all__ = ["MIN_BYTES", "Deflater", "Inflater", "TooLongError", "deflater", "encode_deflated"]

MIN_BYTES: Final = 128
"""A shorter payload is sent as it is: compressing it saves nothing that is worth the time."""
LEVEL: Final = 3
"""Of zlib. Events of a few hundred bytes get no smaller with a higher one, and messages with a context hardly do."""
_TAIL: Final = b"\x00\x00\xff\xff"
"""What ends each compressed message, and is not sent."""
_NO_DATA: Final = b"\x00"
"""What is left of an empty block without its `_TAIL`."""
_MOST_STORED: Final = 0xFFFF
"""The most bytes of a block that is not compressed."""
_MEMORY_LEVEL: Final = 5
"""Of the objects that belong to one connection, which take 32 KiB with it."""
_STORED_BYTES: Final = 11
"""What two blocks take that are not compressed, and the end of the last one."""
_CACHED_PAYLOADS: Final = 64
_CACHED_BYTES: Final = 1024 * 1024

Deflater: TypeAlias = Callable[[bytes, bytes, bytes], "bytes | None"]
"""Compresses a message of three parts, ``before``, payload and ``after``; None if that would not make it smaller."""


class TooLongError(Exception):
    """A message is longer than allowed once it is inflated."""


class Inflater:
    """Inflates the messages of one peer.

    Raises `zlib.error` for what is not compressed data. After that, or after `TooLongError`, nothing more may be
    inflated.
    """

    __slots__ = ("_bits", "_decoder", "_has_context")

    def __init__(self, agreed: Compression) -> None:
        self._has_context = agreed.client_context
        self._bits = -agreed.client_bits
        self._decoder: zlib._Decompress | None = None

    def inflate(self, data: bytes, most: int, *, is_last: bool) -> bytes:
        """Return what the next bytes of a message hold. Raises `TooLongError` if that is more than ``most`` bytes."""
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = zlib.decompressobj(self._bits)
        if is_last:
            data += _TAIL
        found = decoder.decompress(data, most + 1)
        if len(found) > most:
            raise TooLongError
        if is_last:
            if decoder.eof and decoder.unused_data not in (_TAIL, _NO_DATA + _TAIL):
                # A last block may be marked as such (RFC 7692 section 7.2.3.5); only an empty one may follow it.
                raise zlib.error("data behind the last block")
            if decoder.eof or not self._has_context:
                self._decoder = None
        return found


class _ContextDeflater:
    """Compresses the messages of one connection, each with what was sent before."""

    def __init__(self, bits: int) -> None:
        self._coder = zlib.compressobj(LEVEL, zlib.DEFLATED, -bits, _MEMORY_LEVEL)

    def __call__(self, before: bytes, payload: bytes, after: bytes) -> bytes:
        compress = self._coder.compress
        parts = (compress(before), compress(payload), compress(after), self._coder.flush(zlib.Z_SYNC_FLUSH))
        return b"".join(parts).removesuffix(_TAIL)


class _SharedDeflater:
    """Compresses messages of any connections, each by itself."""

    def __init__(self, bits: int) -> None:
        self._coder = zlib.compressobj(LEVEL, zlib.DEFLATED, -bits)
        self._cache: dict[bytes, bytes] = {}
        self._cached_bytes = 0

    def __call__(self, before: bytes, payload: bytes, after: bytes) -> bytes | None:
        blocks = self._cache.get(payload)
        if blocks is None:
            blocks = self._compress(payload)
        size = len(before) + len(payload) + len(after)
        if len(blocks) + len(before) + len(after) + _STORED_BYTES >= size or len(before) + len(after) > _MOST_STORED:
            return None
        if not after:
            return _stored(before) + blocks[: -len(_TAIL)]
        return b"".join((_stored(before), blocks, _stored(after), _NO_DATA))

    def _compress(self, payload: bytes) -> bytes:
        """Return a payload in blocks that end at the boundary of a byte, and remember them."""
        # After a full flush nothing refers to what was before.
        blocks = self._coder.compress(payload) + self._coder.flush(zlib.Z_FULL_FLUSH)
        if len(self._cache) >= _CACHED_PAYLOADS or self._cached_bytes > _CACHED_BYTES:
            self._cache.clear()
            self._cached_bytes = 0
        self._cache[payload] = blocks
        self._cached_bytes += len(payload) + len(blocks)
        return blocks


_shared = cache(_SharedDeflater)


def deflater(agreed: Compression) -> Deflater:
    """Return what compresses the messages of a connection."""
    return _ContextDeflater(agreed.server_bits) if agreed.server_context else _shared(agreed.server_bits)


def _stored(data: bytes) -> bytes:
    """Return a block that is not compressed (RFC 1951 section 3.2.4); nothing for no data."""
    size = len(data)
    return b"".join((b"\0", size.to_bytes(2, "little"), (size ^ 0xFFFF).to_bytes(2, "little"), data)) if size else b""


def encode_deflated(
    payloads: Sequence[bytes], deflate: Deflater, *, binary: bool = False, before: bytes = b"", after: bytes = b""
) -> list[Encoded]:
    """Do what `pyryrelay.websocket.frames.writer.encode` does, and compress the messages that are worth it."""
    first, extra = BINARY if binary else TEXT, len(before) + len(after)
    slices: list[Encoded] = []
    parts: list[bytes] = []
    size = frames = 0
    for payload in payloads:
        message = deflate(before, payload, after) if len(payload) >= MIN_BYTES else None
        if message is None:
            parts += (frame_head(first, len(payload) + extra), before, payload, after)
            size += len(payload) + extra
        else:
            parts += (frame_head(first | RSV1, len(message)), message)
            size += len(message)
        frames += 1
        if size >= SLICE_BYTES:
            slices.append((b"".join(parts), frames))
            parts, size, frames = [], 0, 0
    if frames:
        slices.append((b"".join(parts), frames))
    return slices
