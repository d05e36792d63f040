"""IPv4 addresses inside IPv6 addresses: a client that was translated on its way counts as the IPv4 client it is.

These forms are well known: IPv4-mapped addresses (``::ffff:192.0.2.1``, RFC 4291 section 2.5.5.2), SIIT
(``::ffff:0:192.0.2.1``, RFC 2765), the prefix of NAT64 (``64:ff9b::192.0.2.1``, RFC 6052 section 2.1) and 6to4
(``2002:c000:201::``, RFC 3056). Prefixes of an operator's own translators are `Nat64Prefix`.

Private, loopback and other special addresses are extracted from mapped addresses alone, which is how a dual-stack
socket shows IPv4 peers. Inside all others they stay IPv6, so that a client cannot become this machine, or a trusted
proxy of a private network, by sending from ``2002:7f00:1::``.

Addresses and networks are integers here, prefix lengths are bits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Network, IPv6Address
from typing import Final, NamedTuple, Self

from pyryrelay.guard.errors import CidrError

__all__ = ["Nat64Prefix", "embedded_ipv4", "embedded_network", "hides_ipv4", "is_translated"]

_LENGTHS: Final = (32, 40, 48, 56, 64, 96)
_LOW_32: Final = 0xFFFF_FFFF
_MAPPED: Final = 0xFFFF
_SIIT: Final = 0xFFFF_0000
_NAT64: Final = 0x64_FF9B << 64
"""The first 96 bits of mapped and SIIT addresses, and of the well-known prefix."""
_SIX_TO_FOUR: Final = 0x2002
"""The first 16 bits."""
_FORM: Final = "write a prefix of a translator such as '2001:db8:64::/96'"

# Ranges that begin at an even place and end before the next one.
_SPECIAL: Final = tuple(
    edge
    for network in map(
        IPv4Network,
        [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/3",
        ],
    )
    for edge in (int(network.network_address), int(network.broadcast_address) + 1)
)


class Nat64Prefix(NamedTuple):
    """The prefix that a translator puts before IPv4 addresses (RFC 6052 section 2.2); `parse` checks it."""

    first: int
    bits: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``address/bits``. Raises `CidrError` for what is no prefix of a translator."""
        address_text, _, bits_text = text.strip().partition("/")
        try:
            first = int(IPv6Address(address_text))
        except AddressValueError:
            raise CidrError(f"{text!r} is no IPv6 network: {_FORM}") from None
        if bits_text not in map(str, _LENGTHS):
            lengths = ", ".join(map(str, _LENGTHS))
            raise CidrError(f"{text!r} has no length of RFC 6052: use one of {lengths} after the '/'")
        bits = int(bits_text)
        if first & (1 << 128 - bits) - 1:
            raise CidrError(f"{text!r} has host bits set: {_FORM}")
        # RFC 6052 section 2.2: "Bits 64 to 71 of the address are reserved ... and MUST be set to 0".
        if first >> 56 & 0xFF:
            raise CidrError(f"{text!r} has bits set from 64 to 71, which RFC 6052 reserves: {_FORM}")
        return cls(first, bits)

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return f"{IPv6Address(self.first)}/{self.bits}"

    def holds(self, value: int) -> bool:
        """Tell whether an IPv6 address begins with this prefix."""
        return (value ^ self.first) >> 128 - self.bits == 0

    def ipv4(self, value: int) -> int | None:
        """Return the IPv4 address in an address of this prefix, None if its reserved bits say that there is none."""
        if self.bits == 96:
            return value & _LOW_32
        if value >> 56 & 0xFF:
            return None
        # What does not fit before bit 64 stands behind bit 72; the rest is ignored.
        after = self.bits - 32
        return (value >> 64 & (1 << 64 - self.bits) - 1) << after | value >> 56 - after & (1 << after) - 1

    def ipv4_bits(self, bits: int) -> int:
        """Return how many bits of the IPv4 address the first ``bits`` bits hold."""
        if self.bits == 96:
            return max(0, bits - 96)
        return max(0, min(bits, 64) - self.bits) + max(0, min(bits - 72, self.bits - 32))


def embedded_ipv4(value: int, prefixes: Iterable[Nat64Prefix] = ()) -> int | None:
    """Return the IPv4 address that the IPv6 address ``value`` stands for, or None."""
    start = value >> 112
    if start == 0:
        if value >> 32 == _MAPPED:
            return value & _LOW_32
        ipv4 = value & _LOW_32 if value >> 32 == _SIIT else None
    elif start == _SIX_TO_FOUR:
        ipv4 = value >> 80 & _LOW_32
    elif value >> 32 == _NAT64:
        ipv4 = value & _LOW_32
    else:
        ipv4 = next((prefix.ipv4(value) for prefix in prefixes if prefix.holds(value)), None)
    return None if ipv4 is None or bisect_right(_SPECIAL, ipv4) & 1 else ipv4


def is_translated(value: int, prefixes: Iterable[Nat64Prefix] = ()) -> bool:
    """Tell whether ``value`` begins with the prefix of a translator, so that its neighbours are other people."""
    return value >> 32 in (_SIIT, _NAT64) or any(prefix.holds(value) for prefix in prefixes)


def embedded_network(first: int, bits: int, prefixes: Iterable[Nat64Prefix] = ()) -> tuple[int, int] | None:
    """Return the IPv4 network that an IPv6 network stands for, as first address and length, or None.

    None also for all of a translator's prefix: no client that it could hold counts as IPv6, and an operator who puts it
    on a list hardly means the whole of the Internet.
    """
    if first >> 32 == _MAPPED and bits >= 96:
        return first & _LOW_32, bits - 96
    part = _ipv4_part(first, bits, prefixes)
    if part is None or part[1] <= 0:
        return None
    ipv4, ipv4_bits = part
    last = ipv4 | (1 << 32 - ipv4_bits) - 1
    place = bisect_right(_SPECIAL, ipv4)
    return None if place & 1 or bisect_right(_SPECIAL, last) != place else (ipv4, ipv4_bits)


def hides_ipv4(first: int, bits: int, prefixes: Iterable[Nat64Prefix] = ()) -> bool:
    """Tell whether an IPv6 network matches hardly any of its clients, because they count as IPv4 clients.

    Such a network lies inside a translator's prefix, stays IPv6 (see `embedded_network`), and holds addresses that
    `embedded_ipv4` finds an IPv4 address in: it is all of the prefix, or has special addresses among others.
    """
    part = _ipv4_part(first, bits, prefixes)
    if part is None or part[1] < 0 or embedded_network(first, bits, prefixes) is not None:
        return False
    ipv4, ipv4_bits = part
    last = ipv4 | (1 << 32 - ipv4_bits) - 1
    place = bisect_right(_SPECIAL, ipv4)
    return place & 1 == 0 or last >= _SPECIAL[place]


def _ipv4_part(first: int, bits: int, prefixes: Iterable[Nat64Prefix]) -> tuple[int, int] | None:
    """Return which IPv4 addresses stand in a network whose first address has a translator's prefix, None for others.

    They are a first address and a length, which is negative if the network is more than the prefix.
    """
    if first >> 112 == _SIX_TO_FOUR:
        return first >> 80 & _LOW_32, min(32, bits - 16)
    known = (Nat64Prefix(_SIIT << 32, 96), Nat64Prefix(_NAT64 << 32, 96), *prefixes)
    found = next((prefix for prefix in known if prefix.holds(first)), None)
    if found is None or (inside := found.ipv4(first)) is None:
        return None
    return inside, found.ipv4_bits(bits) if bits >= found.bits else -1
