"""Sans-I/O WebSocket framing (RFC 6455 section 5.2): whole messages into the bytes of server frames.

A server's frames are never masked and ours are never fragmented, so a frame is a short header and the payload.
"""

from __future__ import annotations

_TEXT = 0x81  # FIN and opcode 1
_BINARY = 0x82  # FIN and opcode 2
_MAX_7_BIT = 125
_MAX_16_BIT = 0xFFFF


def encode(payload: bytes, *, binary: bool = False) -> bytes:
    """One unfragmented, unmasked data frame around ``payload``."""
    first = _BINARY if binary else _TEXT
    size = len(payload)
    if size <= _MAX_7_BIT:
        return bytes((first, size)) + payload
    if size <= _MAX_16_BIT:
        return bytes((first, 126, size >> 8, size & 0xFF)) + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload
