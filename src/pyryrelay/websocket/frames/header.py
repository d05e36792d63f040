"""PURE: the frame header of RFC 6455 section 5.2, as numbers that the reader and the writer share.

The first byte holds FIN, three reserved bits and the opcode; the second the MASK bit and a length of 7 bits, of which
126 and 127 announce a length of 16 or 64 bits. Sizes are bytes.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "BINARY",
    "BINARY_OPCODE",
    "CLOSE",
    "FIN",
    "LENGTH_16_BIT",
    "LENGTH_64_BIT",
    "MASKED",
    "MASKED_16_BIT",
    "MASKED_64_BIT",
    "MAX_7_BIT",
    "MAX_16_BIT",
    "MAX_63_BIT",
    "PING",
    "PONG",
    "RSV",
    "RSV1",
    "SHORTEST",
    "TEXT",
    "header_bytes",
]

FIN: Final = 0x80
RSV: Final = 0x70
RSV1: Final = 0x40
"""In the first frame of a message: it is compressed (RFC 7692 section 6)."""
TEXT: Final = 0x81
"""The first byte of a text message in one frame. `BINARY` to `PONG` are the first bytes of the other whole frames."""
BINARY: Final = 0x82
CLOSE: Final = 0x88
PING: Final = 0x89
PONG: Final = 0x8A
BINARY_OPCODE: Final = 2

MAX_7_BIT: Final = 125
MAX_16_BIT: Final = (1 << 16) - 1
MAX_63_BIT: Final = (1 << 63) - 1
LENGTH_16_BIT: Final = 126
LENGTH_64_BIT: Final = 127
MASKED: Final = 0x80
MASKED_16_BIT: Final = MASKED | LENGTH_16_BIT
MASKED_64_BIT: Final = MASKED | LENGTH_64_BIT
SHORTEST: Final = 6
"""A masked frame without a payload: two bytes and the mask."""


def header_bytes(second: int) -> int:
    """Return the length of a frame's header, given its second byte."""
    short = SHORTEST if second >= MASKED else 2
    return short + {LENGTH_16_BIT: 2, LENGTH_64_BIT: 8}.get(second & 127, 0)
