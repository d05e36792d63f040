"""The integers under which addresses are counted, and the networks around them.

An `AddressKey` holds family, prefix length and prefix: ``((1 << bits) | prefix) << 1``, plus 1 for IPv6, so keys of
different families or lengths never collide. No key is below 2. `ADDRESS_LADDER` says which buckets clients share when
there is no room for one of their own (see `pyryrelay.guard.rate.ladder`).

Prefix lengths are bits.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Final

from pyryrelay.guard.address.lists import IPAddress, IPNetwork
from pyryrelay.guard.errors import AddressError

__all__ = [
    "ADDRESS_LADDER",
    "IPV4_PREFIX_BITS",
    "IPV6_PREFIX_BITS",
    "AddressKey",
    "AddressLadder",
    "address_key",
    "coarser",
    "covering_prefix",
    "network_of",
]

AddressKey = int

IPV4_PREFIX_BITS: Final = 24
"""The length of an IPv4 prefix that one customer or one rented subnet has."""

IPV6_PREFIX_BITS: Final = 48
"""The same for IPv6."""

_V4_LADDER: Final = (IPV4_PREFIX_BITS, 16, 8)
_V6_LADDER: Final = (IPV6_PREFIX_BITS, 32, 16)
_FAMILY_KEY: Final = 2


def address_key(ip: IPAddress, bits: int) -> AddressKey:
    """Return the key of the first ``bits`` bits of ``ip``. Raises `AddressError` if the family has fewer bits."""
    width = ip.max_prefixlen
    if not 0 <= bits <= width:
        raise AddressError(f"prefix length {bits!r} does not fit {str(ip)!r}: use 0 to {width}")
    return ((1 << bits | int(ip) >> (width - bits)) << 1) | (ip.version == 6)


def network_of(key: AddressKey) -> IPNetwork:
    """Return the network that ``key`` stands for. Raises `AddressError` for a number that is not a key."""
    prefix, is_v6 = key >> 1, key & 1
    bits = prefix.bit_length() - 1
    width = 128 if is_v6 else 32
    if not 0 <= bits <= width:
        raise AddressError(f"{key!r} is not an address key: make one with address_key()")
    first = (prefix ^ 1 << bits) << (width - bits)
    return IPv6Network((first, bits)) if is_v6 else IPv4Network((first, bits))


def coarser(key: AddressKey, bits: int) -> AddressKey:
    """Return the key of the first ``bits`` bits of a key's prefix, or the key itself if it has no more than that.

    Raises `AddressError` for a negative prefix length.
    """
    if bits < 0:
        raise AddressError(f"prefix length {bits!r} is negative: use 0 or more")
    prefix = key >> 1
    surplus = prefix.bit_length() - 1 - bits
    return key if surplus <= 0 else (prefix >> surplus) << 1 | (key & 1)


def covering_prefix(key: AddressKey) -> AddressKey:
    """Return the key of the /24 or /48 around an address, which one customer or one rented subnet has.

    A key that is coarser already, because clients are folded to less than that, is its own prefix.
    """
    # `coarser` without its checks, because each attempt needs it.
    prefix = key >> 1
    surplus = prefix.bit_length() - (IPV6_PREFIX_BITS if key & 1 else IPV4_PREFIX_BITS) - 1
    return key if surplus <= 0 else prefix >> surplus << 1 | key & 1


class AddressLadder:
    """A `Ladder`: clients share the bucket of their /24, /16 or /8 (IPv6: /48, /32 or /16), then of their family."""

    __slots__ = ()

    steps = 4
    last_keys = 2

    def __call__(self, key: AddressKey) -> tuple[AddressKey, AddressKey, AddressKey, AddressKey]:
        """Return the keys of the prefixes around ``key``, from fine to coarse; coarser keys stand for themselves."""
        # `coarser` three times without its checks: with a full table each attempt of a new client needs it.
        is_v6, prefix = key & 1, key >> 1
        bits = prefix.bit_length() - 1
        fine, middle, coarse = _V6_LADDER if is_v6 else _V4_LADDER
        return (
            key if bits <= fine else prefix >> bits - fine << 1 | is_v6,
            key if bits <= middle else prefix >> bits - middle << 1 | is_v6,
            key if bits <= coarse else prefix >> bits - coarse << 1 | is_v6,
            _FAMILY_KEY | is_v6,
        )


ADDRESS_LADDER: Final = AddressLadder()
"""The ladder for `AddressKey`."""
