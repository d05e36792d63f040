"""Which worker accepts the connections of an address, and which one owns a key. PURE.

All connections of a /24 of IPv4, or a /48 of IPv6, are accepted by one worker, so that the guard counts them alone and
exactly. The kernel steers the connections of TCP sockets with a program that computes the same as `steer` (see
`pyryrelay.listen.kernel.steering`). Both depend on a secret seed, so that nobody can choose networks or keys that all
fall on one worker.
"""

from __future__ import annotations

from hashlib import blake2b

from pyryrelay.guard.address.lists import IPAddress
from pyryrelay.listen.kernel.steering import (
    HASH_SHIFT,
    MIX_SHIFT,
    SEED_BITS,
    Embedding,
    Steering,
)

__all__ = ["owner_of", "steer"]

_WORD = 0xFFFF_FFFF


def steer(address: IPAddress, steering: Steering | int) -> int:
    """Return the index of the worker that accepts the connections of an address.

    A number instead of a `Steering` is the number of workers, with the usual prefixes.
    """
    if isinstance(steering, int):
        steering = Steering(steering)
    value, factors = int(address), steering.factors
    if address.version == 4:
        prefix = value >> 8
    elif (v4_prefix := _v4_prefix(value, steering)) is not None:
        prefix = v4_prefix
    else:
        first = (value >> 96) & steering.first_mask
        second = (value >> 64 & steering.second_mask) >> 16
        prefix = first * factors.v6 + second
    product = (prefix + factors.addend) * factors.first & _WORD
    return (((product ^ product >> MIX_SHIFT) * factors.last & _WORD) >> HASH_SHIFT) % steering.count


def _v4_prefix(value: int, steering: Steering) -> int | None:
    """Return the first 24 bits of the IPv4 address that an IPv6 address holds, or None."""
    for embedding in steering.embeddings:
        if (value ^ embedding.first) >> 128 - embedding.bits == 0:
            return _bits(value, embedding)
    return None


def _bits(value: int, embedding: Embedding) -> int:
    found = 0
    for word, right, mask, left in embedding.parts:
        found |= (value >> 96 - 32 * word >> right & mask) << left
    return found


def owner_of(key: str, count: int, seed: int = 0) -> int:
    """Return the index of the worker that serves all connections with ``key``. ``seed`` is that of the `Steering`."""
    secret = seed.to_bytes(SEED_BITS // 8, "big") if seed else b""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "big") % count
