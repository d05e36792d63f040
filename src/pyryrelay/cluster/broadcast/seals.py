"""An entry of a stream, sealed so that only members of the cluster can make or read it.

Sealing is AES-256-GCM. Each sender has a key of its own, derived from the cluster's secret and its name, which is new
with each start. So a counter makes the nonces, and none is used twice with a key. An entry is good for one stream. The
sender vouches for the time of the server's clock at which it was sent.

Layout: version (1 byte), the sender's name (8), counter (8), and sealed: the time in us (8), the body; tag (16).
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["OVERHEAD_BYTES", "Opened", "Seals"]

_HEAD: Final = struct.Struct(">B8sQ")
_TIME: Final = struct.Struct(">Q")
_VERSION: Final = 1
_SENDER_BYTES: Final = 8
_NONCE: Final = struct.Struct(">4xQ")
_TAG_BYTES: Final = 16
_MOST_SENDERS: Final = 256
"""Keys that are kept. Names of senders cost nothing to invent, so there must be a bound."""

OVERHEAD_BYTES: Final = _HEAD.size + _TIME.size + _TAG_BYTES
"""By how much an entry is longer than its body."""


class Opened(NamedTuple):
    """What an entry says. ``sent_at`` is in seconds of the server's clock."""

    sent_at: float
    body: bytes


class Seals:
    """Seals the entries of one sender, and opens those of all. ``stream`` is the key of the stream that they are in."""

    def __init__(self, sealing_key: bytes) -> None:
        self._sender = os.urandom(_SENDER_BYTES)
        self._own_head = _HEAD.pack(_VERSION, self._sender, 0)[: 1 + _SENDER_BYTES]
        self._sealing_key = sealing_key
        self._own = self._cipher(self._sender)
        self._others = lru_cache(_MOST_SENDERS)(self._cipher)
        self._count = 0

    def _cipher(self, sender: bytes) -> AESGCM:
        return AESGCM(blake2b(sender, digest_size=32, key=self._sealing_key, person=b"broadcast").digest())

    def sealed(self, body: bytes, sent_at: float, stream: bytes) -> bytes:
        """Return an entry that only members can read."""
        self._count += 1
        text = _TIME.pack(max(0, int(sent_at * 1e6))) + body
        head = _HEAD.pack(_VERSION, self._sender, self._count)
        return head + self._own.encrypt(_NONCE.pack(self._count), text, stream)

    def opened(self, raw: bytes, stream: bytes) -> Opened | None:
        """Return what a member has sealed for this stream; None for anything else."""
        if len(raw) < OVERHEAD_BYTES:
            return None
        version, sender, count = _HEAD.unpack_from(raw)
        if version != _VERSION:
            return None
        try:
            text = self._others(sender).decrypt(_NONCE.pack(count), raw[_HEAD.size :], stream)
        except InvalidTag:
            return None
        return Opened(_TIME.unpack_from(text)[0] / 1e6, text[_TIME.size :])

    def is_own(self, raw: bytes) -> bool:
        """Tell whether an entry says that it was sealed here."""
        return raw.startswith(self._own_head)
