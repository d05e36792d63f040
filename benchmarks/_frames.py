"""WebSocket frames (RFC 6455 section 5.2) and routing envelopes as bytes, for load generators. PURE.

Payloads are JSON texts of an exact size. Each has its sender and its sequence number, so that a receiver notices lost,
changed and reordered frames. Sizes are bytes.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MASKED = 0x80
TEXT, PING, PONG = 0x81, 0x89, 0x8A
MIN_PAYLOAD_BYTES = 40
_random = random.Random(4)  # the same traffic in every run


class TrafficError(Exception):
    """The received data differs from the sent data."""


def payload(sender: int, sequence: int, size_bytes: int) -> bytes:
    """Return a JSON text of exactly ``size_bytes`` (at least ``MIN_PAYLOAD_BYTES``), filled with base64."""
    head, tail = b'{"from":%d,"sequence":%d,"data":"' % (sender, sequence), b'"}'
    room_bytes = size_bytes - len(head) - len(tail)
    if room_bytes < 0:
        raise ValueError(f"no room for a payload in {size_bytes} bytes")
    noise = base64.b64encode(_random.randbytes(min(room_bytes, 3072)))
    return head + (noise * (room_bytes // max(1, len(noise)) + 1))[:room_bytes] + tail


def envelope(conn_id: str, frame: bytes) -> bytes:
    """Return the envelope that a binary sends to deliver ``frame`` to the phone ``conn_id``."""
    return b'{"conn_id":' + json.dumps(conn_id).encode() + b',"frame":' + frame + b"}"


def header(size_bytes: int, first: int = TEXT, masked: int = 0) -> bytes:
    """Return the header of an unfragmented frame, without the mask."""
    if size_bytes <= 125:
        return bytes((first, masked | size_bytes))
    if size_bytes <= 0xFFFF:
        return bytes((first, masked | 126)) + size_bytes.to_bytes(2, "big")
    return bytes((first, masked | 127)) + size_bytes.to_bytes(8, "big")


def masked(data: bytes, first: int = TEXT) -> bytes:
    """Return a frame of a client, with a random mask."""
    mask = _random.randbytes(4)
    size_bytes = len(data)
    key = (mask * (size_bytes // 4 + 1))[:size_bytes]
    masked_data = (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size_bytes, "little")
    return header(size_bytes, first, MASKED) + mask + masked_data


def frame_bytes(payload_bytes: int, *, from_client: bool) -> int:
    """Return the length of a frame with a payload of this length."""
    return len(header(payload_bytes)) + 4 * from_client + payload_bytes


def frames(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield first byte and payload of each frame from a server; the stream must end with a whole frame."""
    position = 0
    while position < len(stream):
        size_bytes = stream[position + 1]
        start = position + 2
        if size_bytes >= 126:
            length_bytes = 2 if size_bytes == 126 else 8
            size_bytes = int.from_bytes(stream[start : start + length_bytes], "big")
            start += length_bytes
        if start + size_bytes > len(stream):
            raise TrafficError("a frame was cut off")
        yield stream[position], stream[start : start + size_bytes]
        position = start + size_bytes


@dataclass(frozen=True)
class Opened:
    """A received envelope."""

    conn_id: str
    frame: bytes
    """The frame, byte for byte."""


def open_envelope(data: bytes) -> Opened:
    """Parse an envelope with its fields in any order."""
    fields: Any = json.loads(data)
    if not isinstance(fields, dict) or not set(fields) >= {"conn_id", "frame"}:
        raise TrafficError("not an envelope")
    start = data.index(b'"frame":') + len(b'"frame":')
    text = data[start:].decode()
    text = text.lstrip()
    _, end = json.JSONDecoder().raw_decode(text)
    return Opened(fields["conn_id"], text[:end].encode())


def check_order(received: Sequence[bytes], sent: Sequence[Sequence[bytes]]) -> set[int]:
    """Check that the payloads of each sender are consecutive; they repeat cyclically. Returns the senders."""
    expected: dict[int, int] = {}
    for data in received:
        fields = json.loads(data)
        sender, sequence = fields["from"], fields["sequence"]
        if data != sent[sender][sequence]:
            raise TrafficError("a payload was changed")
        if expected.setdefault(sender, sequence) != sequence:
            raise TrafficError(f"frame {expected[sender]} of sender {sender} is missing")
        expected[sender] = (sequence + 1) % len(sent[sender])
    return set(expected)
