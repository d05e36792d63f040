"""A sentence or a release as a member of the cluster tells the others: sealed, so only members can read or make one.

Sealing is AES-256-GCM with the cluster's secret. The end of a sentence is a time of the server's clock, so a row that
is repeated later says nothing new. Times are seconds.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyryrelay.guard import AddressKey, network_of
from pyryrelay.guard.errors import AddressError

__all__ = ["Row", "Rows"]

_FORM: Final = struct.Struct(">17sdI8s")
_NONCE_BYTES: Final = 12
_MAX_ORIGIN_CHARS: Final = 255
_PURPOSE: Final = b"sentence"


class Row(NamedTuple):
    """The sentence of ``key``, or its release if ``times`` is None; ``until`` is a time of the server's clock.

    ``sender`` is the id of the member that told it, and ``origin`` names the one that passed the sentence, for people.
    """

    key: AddressKey
    until: float
    times: int | None
    sender: bytes
    origin: str = ""


class Rows:
    """Seals and opens rows. ``sender`` is the id of this member, of 8 bytes, and ``name`` what people call it."""

    def __init__(self, sealing_key: bytes, sender: bytes, name: str = "") -> None:
        self.sender = sender
        self._name = _origin(name)
        self._seal = AESGCM(sealing_key)

    def sealed(self, key: AddressKey, until: float, times: int | None, origin: str = "") -> bytes:
        """Return a row that only members can read; without ``origin`` it is this member's."""
        nonce = os.urandom(_NONCE_BYTES)
        text = _FORM.pack(key.to_bytes(17, "big"), until, 0 if times is None else min(times, 1 << 20) + 1, self.sender)
        return nonce + self._seal.encrypt(nonce, text + (_origin(origin) or self._name).encode(), _PURPOSE)

    def opened(self, sealed: bytes) -> Row | None:
        """Return what a member has sealed; None for anything else."""
        try:
            text = self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _PURPOSE)
            key_bytes, until, times, sender = _FORM.unpack_from(text)
            key = int.from_bytes(key_bytes, "big")
            network_of(key)
            origin = _origin(text[_FORM.size :].decode())
        except (InvalidTag, ValueError, struct.error, AddressError):
            return None
        return Row(key, until, times - 1 if times else None, sender, origin)


def _origin(name: str) -> str:
    """Return a name that can be shown to people, "" for any other. One object for many rows, to save memory."""
    return sys.intern(name) if len(name) <= _MAX_ORIGIN_CHARS and name.isascii() and name.isprintable() else ""
