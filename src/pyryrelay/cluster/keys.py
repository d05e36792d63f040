"""The names under which a cluster keeps what it shares. PURE.

A key is ``pyry:NAME:{PARTITION}REST``. All keys of one script are in one partition, and each partition is on one
server. What a key is about, such as an address, is hashed with the cluster's secret, so those who can read the server
do not learn it. `Keys.sealing_key` and `Keys.signing_key` are for what only the cluster may read or write.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

__all__ = ["HASH_BYTES", "PARTITIONS", "Keys", "partition_of"]

PARTITIONS: Final = 64
HASH_BYTES: Final = 9
"""With a million addresses, two of them share a hash with a chance of one in ten billion."""


def partition_of(hashed: bytes) -> int:
    """Return the partition of what was hashed."""
    return hashed[0] % PARTITIONS


class Keys:
    """The keys of the cluster ``name``, whose members know ``secret``."""

    __slots__ = ("_prefix", "_secret", "name", "sealing_key", "signing_key")

    def __init__(self, name: str, secret: bytes) -> None:
        self.name = name
        self._prefix = f"pyry:{name}:"
        self._secret = _derived(secret, b"keys")
        self.sealing_key = _derived(secret, b"seal")
        self.signing_key = _derived(secret, b"sign")

    def hashed(self, kind: bytes, value: bytes) -> bytes:
        """Return the hash of a value; ``kind``, of 16 bytes at most, keeps values of different kinds apart."""
        return blake2b(value, digest_size=HASH_BYTES, key=self._secret, person=kind).digest()

    def begun(self, kind: bytes, value: bytes) -> blake2b:
        """Return what computes the hash of ``value`` and what is added to it."""
        return blake2b(value, digest_size=HASH_BYTES, key=self._secret, person=kind)

    def key(self, partition: int, kind: str, hashed: bytes = b"") -> bytes:
        """Return the key of something in a partition."""
        return f"{self._prefix}{{{partition}}}{kind}".encode() + hashed


def _derived(secret: bytes, purpose: bytes) -> bytes:
    """Return 32 bytes that tell nothing about the secret, and nothing about those for another purpose."""
    return blake2b(secret, digest_size=32, person=b"pyryrelay " + purpose).digest()
