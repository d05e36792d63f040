"""Frames that a client writes (our own builder), and the server's as an independent implementation reads them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import cycle

from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"


def header(size: int, opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Return the first bytes of a frame, up to the masking key (RFC 6455 section 5.2)."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if size <= 125:
        return bytes((first, mask_bit | size))
    if size <= 0xFFFF:
        return bytes((first, mask_bit | 126)) + struct.pack("!H", size)
    return bytes((first, mask_bit | 127)) + struct.pack("!Q", size)


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK) -> bytes:
    """Return one frame as a client sends it; with ``mask=None`` it breaks the rules."""
    if mask is None:
        return header(len(payload), opcode, fin=fin, rsv=rsv, masked=False) + payload
    masked = bytes(byte ^ key for byte, key in zip(payload, cycle(mask), strict=False))
    return header(len(payload), opcode, fin=fin, rsv=rsv) + mask + masked


def fragments(parts: Sequence[bytes], opcode: int = TEXT) -> list[bytes]:
    """Return the frames of one message that is sent in parts."""
    last = len(parts) - 1
    return [frame(part, CONTINUATION if at else opcode, fin=at == last) for at, part in enumerate(parts)]


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a close frame; without a code it has no body."""
    return frame(b"" if code is None else struct.pack("!H", code) + reason, CLOSE)


class Decoder:
    """Read what a server sends; raise the other implementation's errors for what it must not send."""

    def __init__(self) -> None:
        self._reader = StreamReader()

    def decode(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now."""
        self._reader.feed_data(data)
        found: list[Frame] = []
        while self._reader.buffer:
            before = bytes(self._reader.buffer)
            parser = Frame.parse(self._reader.read_exact, mask=False)
            try:
                next(parser)
            except StopIteration as done:
                found.append(done.value)
            else:
                self._reader.buffer[:] = before
                break
        return found


def decode(data: bytes) -> list[Frame]:
    """Return the frames in ``data``, which must hold whole ones."""
    decoder = Decoder()
    found = decoder.decode(data)
    assert not decoder._reader.buffer
    return found


def close_of(found: Frame) -> tuple[int, str]:
    """Return code and reason of a close frame."""
    assert found.opcode is Opcode.CLOSE
    close = Close.parse(found.data)
    return close.code, close.reason
