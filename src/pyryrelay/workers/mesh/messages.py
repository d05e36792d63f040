"""What workers send each other, as bytes: each message is one datagram. PURE.

| kind | what it is | descriptor |
|---|---|---|
| ``head`` | a connection whose request head was read and admitted by the sender | the connection |
| ``ended`` | connections that came by ``head`` and are over, by the numbers of their leases | none |
| ``object`` | anything else: a JSON object | a connection |

A head is the kind, `_HEAD` (sender, its boot, the number of the lease, and the sizes of what follows), the client's
address, that of the peer of the socket, the head, and what was read behind it. Sizes are bytes.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["MAX_MESSAGE_BYTES", "Ended", "HandedOver", "Message", "MessageError", "decode", "encode"]

MAX_MESSAGE_BYTES: Final = 196_608
"""Larger ones are not sent: a head, what TLS and a waiting connection may hold behind it, and room to spare."""
MAX_NUMBERS: Final = 4096
"""Lease numbers in one message."""

_HEAD: Final = Struct("!cHQQHHI")
_ENDED: Final = Struct("!cQI")
_HEAD_KIND, _ENDED_KIND, _OBJECT_KIND = b"h", b"e", b"j"


class MessageError(ValueError):
    """Bytes that are no message, or a message that is too large."""


class HandedOver(NamedTuple):
    """A connection that ``sender`` has admitted, whose process has the number ``boot``; ``number`` is its lease.

    ``client`` is an address, ``peer`` that of the other end of the socket: host and port, None on a UNIX socket.
    """

    sender: int
    boot: int
    number: int
    client: str
    peer: tuple[str, int] | None
    head: bytes
    rest: bytes


class Ended(NamedTuple):
    """Connections that are over, which the process ``boot`` had handed over, by the numbers of their leases."""

    boot: int
    numbers: Sequence[int]


Message: TypeAlias = HandedOver | Ended | Mapping[str, Any]


def encode(message: Message) -> bytes:
    """Return the bytes of a message. Raises `MessageError` if it is too large."""
    if isinstance(message, HandedOver):
        data = _encode_head(message)
    elif isinstance(message, Ended):
        count = len(message.numbers)
        data = _ENDED.pack(_ENDED_KIND, message.boot, count) + Struct(f"!{count}Q").pack(*message.numbers)
    else:
        data = _OBJECT_KIND + json.dumps(message).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(data)} bytes is too large")
    return data


def _encode_head(message: HandedOver) -> bytes:
    client = message.client.encode()
    peer = b"" if message.peer is None else f"{message.peer[0]} {message.peer[1]}".encode()
    sizes = len(client), len(peer), len(message.head)
    fixed = _HEAD.pack(_HEAD_KIND, message.sender, message.boot, message.number, *sizes)
    return b"".join((fixed, client, peer, message.head, message.rest))


def decode(data: bytes | memoryview) -> Message:
    """Return the message of some bytes. Raises `MessageError`."""
    data = bytes(data)
    try:
        if data[:1] == _HEAD_KIND:
            return _decode_head(data)
        if data[:1] == _ENDED_KIND:
            _, boot, count = _ENDED.unpack_from(data)
            return Ended(boot, Struct(f"!{count}Q").unpack(data[_ENDED.size :]))
        if data[:1] == _OBJECT_KIND:
            found = json.loads(data[1:])
            if isinstance(found, dict):
                return found
    except (ValueError, RecursionError, struct.error) as error:
        raise MessageError("bytes that are no message") from error
    raise MessageError("bytes that are no message")


def _decode_head(data: bytes) -> HandedOver:
    _, sender, boot, number, client_bytes, peer_bytes, head_bytes = _HEAD.unpack_from(data)
    ends = [_HEAD.size]
    for size in (client_bytes, peer_bytes, head_bytes):
        ends.append(ends[-1] + size)
    client, peer, head = (data[begin:end] for begin, end in itertools.pairwise(ends))
    if ends[-1] > len(data):
        raise MessageError("a head that is cut off")
    host, _, port = peer.decode().rpartition(" ")
    address = (host, int(port)) if peer else None
    return HandedOver(sender, boot, number, client.decode(), address, head, data[ends[-1] :])
