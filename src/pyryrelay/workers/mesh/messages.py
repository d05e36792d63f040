"""What workers send each other, as bytes: each message is one datagram. PURE.

| kind | what it is | descriptors |
|---|---|---|
| heads | connections whose request heads were read, checked and admitted by the sender | the connections, in order |
| ended | connections that came with heads and are over, by the numbers of their leases | none |
| object | anything else: a JSON object | a connection |

Heads are the kind, their number, the size of each, and each as MessagePack (`HandedOver`). A worker that was started
after the relay was installed anew may be of another version than the others, so a layout that changes gets another
kind. Sizes are bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

__all__ = [
    "MAX_HEADS",
    "MAX_HEAD_BYTES",
    "MAX_MESSAGE_BYTES",
    "Ended",
    "HandedOver",
    "Message",
    "MessageError",
    "decode",
    "encode",
    "encode_head",
    "join_heads",
]

MAX_MESSAGE_BYTES: Final = 196_608
"""Larger ones are not sent: a head, what TLS and a waiting connection may hold behind it, and room to spare."""
MAX_NUMBERS: Final = 4096
"""Lease numbers in one message."""
MAX_HEADS: Final = 32
"""Connections in one message, each of which may be an upgrade."""

_COUNT: Final = Struct("!cH")
_ENDED: Final = Struct("!cQI")
_SIZES: Final = [Struct(f"!{count}I") for count in range(MAX_HEADS + 1)]
_HEADS_KIND, _ENDED_KIND, _OBJECT_KIND = b"H", b"e", b"j"

MAX_HEAD_BYTES: Final = MAX_MESSAGE_BYTES - _COUNT.size - _SIZES[MAX_HEADS].size
"""Of all connections in one message, as `encode_head` returns them."""


class MessageError(ValueError):
    """Bytes that are no message, or a message that is too large."""


class HandedOver(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A connection that ``sender`` has admitted, whose process has the number ``boot``; ``number`` is its lease.

    ``client`` is an address, and ``peer`` that of the other end of the socket as `socket` writes it, None on a UNIX
    socket. ``path``, ``fields`` and ``key`` are what the sender has understood of the ``head``; see
    `pyryrelay.http.placement.Attempt`.
    """

    sender: int
    boot: int
    number: int
    client: str
    peer: tuple[str | int, ...] | None
    path: str
    fields: Mapping[str, Sequence[str]]
    key: str
    head: bytes
    rest: bytes


class Ended(NamedTuple):
    """Connections that are over, which the process ``boot`` had handed over, by the numbers of their leases."""

    boot: int
    numbers: Sequence[int]


Message: TypeAlias = Sequence[HandedOver] | Ended | Mapping[str, Any]

_encoder: Final = msgspec.msgpack.Encoder()
_decode_head: Final = msgspec.msgpack.Decoder(HandedOver).decode


def encode_head(head: HandedOver) -> bytes:
    """Return the bytes of a connection, for `join_heads`. Raises `MessageError` if they are too many."""
    data = _encoder.encode(head)
    if len(data) > MAX_HEAD_BYTES:
        raise MessageError(f"a head of {len(data)} bytes is too large")
    return data


def join_heads(heads: Sequence[bytes]) -> list[bytes]:
    """Return the pieces of a message of up to `MAX_HEADS` connections, which have `MAX_HEAD_BYTES` at most."""
    count = len(heads)
    return [_COUNT.pack(_HEADS_KIND, count), _SIZES[count].pack(*map(len, heads)), *heads]


def encode(message: Ended | Mapping[str, Any]) -> bytes:
    """Return the bytes of a message that has no heads. Raises `MessageError` if it is too large."""
    if isinstance(message, Ended):
        count = len(message.numbers)
        data = _ENDED.pack(_ENDED_KIND, message.boot, count) + Struct(f"!{count}Q").pack(*message.numbers)
    else:
        data = _OBJECT_KIND + json.dumps(message).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(data)} bytes is too large")
    return data


def decode(data: bytes | memoryview) -> Message:
    """Return the message of some bytes. Raises `MessageError`."""
    kind = bytes(data[:1])
    try:
        if kind == _HEADS_KIND:
            return _decode_heads(memoryview(data))
        data = bytes(data)
        if kind == _ENDED_KIND:
            _, boot, count = _ENDED.unpack_from(data)
            return Ended(boot, Struct(f"!{count}Q").unpack(data[_ENDED.size :]))
        if kind == _OBJECT_KIND:
            found = json.loads(data[1:])
            if isinstance(found, dict):
                return found
    except (ValueError, RecursionError, struct.error, msgspec.MsgspecError) as error:
        raise MessageError("bytes that are no message") from error
    raise MessageError("bytes that are no message")


def _decode_heads(data: memoryview) -> list[HandedOver]:
    _, count = _COUNT.unpack_from(data)
    if count > MAX_HEADS:
        raise MessageError(f"{count} heads are too many")
    sizes = _SIZES[count].unpack_from(data, _COUNT.size)
    begin, heads = _COUNT.size + _SIZES[count].size, []
    for size in sizes:
        end = begin + size
        heads.append(_decode_head(data[begin:end]))
        begin = end
    if begin != len(data):
        raise MessageError("heads that are cut off")
    return heads
