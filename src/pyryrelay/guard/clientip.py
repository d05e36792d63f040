"""Who is the client? Peer address, forwarding headers and trusted proxies in; `ClientAddress` out.

Two addresses are told apart: the *peer address* is what the TCP connection shows, the *client address* is
derived from it and from ``X-Forwarded-For``. A proxy appends on the right, so only the right end of that
header can be believed: everything left of the first entry that is not one of our proxies may have been
written by the client.

An `AddressKey` is the integer under which a client is counted. It holds family, prefix length and prefix:
``((1 << bits) | prefix) << 1``, plus 1 for IPv6, so keys of different families or lengths never collide. IPv6
clients are folded to a prefix (64 bits by default), because one subscriber commonly owns all of it.

Nothing here raises on any text that comes from the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

from .errors import AddressError
from .lists import CidrSet, IPAddress, unmapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "DEFAULT_IPV6_PREFIX",
    "MAX_FORWARDED_ENTRIES",
    "AddressKey",
    "ClientAddress",
    "TrustPolicy",
    "address_key",
    "client_address",
    "coarser",
]

AddressKey = int

DEFAULT_IPV6_PREFIX: Final = 64
"""What a subscriber usually gets (RFC 6177)."""

MAX_FORWARDED_ENTRIES: Final = 64
"""Entries of ``X-Forwarded-For`` that are looked at, from the right: no real chain is that long."""

_MAX_TEXT: Final = 128
_OWS: Final = " \t"
_V4: Final = re.compile(r"([0-9.]{7,15})(?::([0-9]{1,5}))?")
_V6_BRACKETED: Final = re.compile(r"\[([0-9A-Fa-f:.]{2,45})(?:%[\w.~-]+)?\](?::([0-9]{1,5}))?", re.ASCII)
_V6_BARE: Final = re.compile(r"([0-9A-Fa-f:.]{2,45})(?:%[\w.~-]+)?", re.ASCII)
_MAX_PORT: Final = 65_535


def address_key(ip: IPAddress, bits: int) -> AddressKey:
    """Return the key of the first `bits` bits of `ip`. Raises `AddressError` if the family has fewer bits."""
    width = ip.max_prefixlen
    if not 0 <= bits <= width:
        raise AddressError(f"prefix length {bits!r} does not fit {str(ip)!r}: use 0 to {width}")
    return ((1 << bits | int(ip) >> (width - bits)) << 1) | (ip.version == 6)


def coarser(key: AddressKey, bits: int) -> AddressKey:
    """Return the key of the first `bits` bits of `key`'s prefix, or `key` itself if it has no more than that.

    Raises `AddressError` for a negative prefix length.
    """
    if bits < 0:
        raise AddressError(f"prefix length {bits!r} is negative: use 0 or more")
    prefix = key >> 1
    surplus = prefix.bit_length() - 1 - bits
    return key if surplus <= 0 else (prefix >> surplus) << 1 | (key & 1)


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """One client: `ip` (never IPv4-mapped, never with a zone) and the `key` it is counted under."""

    ip: IPAddress
    key: AddressKey

    def __str__(self) -> str:
        """Return the canonical text of the address (RFC 5952)."""
        return str(self.ip)

    def prefix_text(self) -> str:
        """Return the network of the address for logs that must not name it: a /24 of IPv4, a /48 of IPv6."""
        if isinstance(self.ip, IPv4Address):
            return str(IPv4Network((self.ip, 24), strict=False))
        return str(IPv6Network((self.ip, 48), strict=False))


def client_address(text: str, ipv6_prefix: int = DEFAULT_IPV6_PREFIX) -> ClientAddress | None:
    """Parse one address as forwarding headers carry it, or return None.

    Accepts ``192.0.2.1``, ``192.0.2.1:443``, ``2001:db8::1``, ``[2001:db8::1]``, ``[2001:db8::1]:443``, a
    zone (``fe80::1%eth0``, dropped), IPv4-mapped addresses (unwrapped) and blanks around it. Everything else
    is None: ``unknown`` and obfuscated names (RFC 7239 section 6), numbers with leading zeros, ports beyond
    65535. Raises `AddressError` for an `ipv6_prefix` that is no prefix length, never for a text.
    """
    ip = _parse_ip(text.strip(_OWS)) if len(text) <= _MAX_TEXT else None
    if ip is None:
        return None
    return ClientAddress(ip, address_key(ip, 32 if ip.version == 4 else ipv6_prefix))


def _parse_ip(text: str) -> IPAddress | None:
    """Read address, port and zone; return the address alone."""
    found = _V4.fullmatch(text)
    if found is None:
        found = _V6_BRACKETED.fullmatch(text) or _V6_BARE.fullmatch(text)
        if found is None:
            return None
    if found.lastindex == 2 and not _is_port(found[2]):
        return None
    try:
        return IPv4Address(found[1]) if found.re is _V4 else unmapped(IPv6Address(found[1]))
    except AddressValueError:
        return None


def _is_port(digits: str) -> bool:
    return int(digits) <= _MAX_PORT and (digits == "0" or not digits.startswith("0"))


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Whose forwarding headers are believed, and how IPv6 clients are folded.

    With `trust_forwarded` off nobody's are. With it on and neither `proxies` nor `trust_unix` given, whoever
    connects is believed for one hop, which is right only where nobody but the proxy can connect. Otherwise a
    peer must be in `proxies`, or come through a UNIX socket with `trust_unix` on. Raises `AddressError` for
    an `ipv6_prefix` outside 1 to 128.
    """

    trust_forwarded: bool = False
    proxies: CidrSet = field(default_factory=CidrSet)
    trust_unix: bool = False
    ipv6_prefix: int = DEFAULT_IPV6_PREFIX

    def __post_init__(self) -> None:
        """Refuse a prefix length that would count all of IPv6 as one client, or nothing."""
        if not 1 <= self.ipv6_prefix <= 128:
            raise AddressError(f"IPv6 prefix length {self.ipv6_prefix!r} is out of range: use 1 to 128")

    def is_proxy(self, peer: str | None) -> bool:
        """Say whether a peer (its address, or None for a UNIX socket) may set forwarding headers."""
        if not self.trust_forwarded:
            return False
        if not self.proxies and not self.trust_unix:
            return True
        if peer is None:
            return self.trust_unix
        address = client_address(peer)
        return address is not None and address in self.proxies

    def derive(self, peer: str | None, forwarded: Sequence[str]) -> ClientAddress | None:
        """Return the client behind `peer`, or None if it cannot be attributed to an address.

        `peer` is the TCP peer's address, or None for a UNIX socket; `forwarded` holds the ``X-Forwarded-For``
        lines in order of appearance. The client is the right-most entry that is no trusted proxy, or the
        left-most of all if all are; an entry on the way that is no address ends the search without an answer.
        """
        client = None if peer is None else client_address(peer, self.ipv6_prefix)
        if not self.is_proxy(peer):
            return client
        for looked_at, entry in enumerate(_entries_from_the_right(forwarded)):
            client = client_address(entry, self.ipv6_prefix) if looked_at < MAX_FORWARDED_ENTRIES else None
            if client is None or client not in self.proxies:
                return client
        return client


def _entries_from_the_right(forwarded: Sequence[str]) -> Iterator[str]:
    """Yield the entries of all lines, last one first.

    RFC 9110 section 5.6.1: "A recipient MUST parse and ignore a reasonable number of empty list elements."
    """
    for line in reversed(forwarded):
        for entry in reversed(line.split(",")):
            if stripped := entry.strip(_OWS):
                yield stripped
