"""PURE: the server's answer to an opening handshake that has been checked (RFC 6455 section 4.2.2)."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_STATUS_AND_FIELDS: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)
_END: Final = b"\r\n\r\n"


def accept_key(key: str) -> bytes:
    """Return the value of ``Sec-WebSocket-Accept`` for a key that was checked."""
    return base64.b64encode(hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest())


def switching_protocols(key: str, extensions: str = "") -> bytes:
    """Return the whole answer to a request with that key, and with the extensions that were agreed upon."""
    fields = f"\r\nSec-WebSocket-Extensions: {extensions}".encode("ascii") if extensions else b""
    return _STATUS_AND_FIELDS + accept_key(key) + fields + _END
