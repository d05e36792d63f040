"""Sets of networks, for allow lists, deny lists and trusted proxies.

A `CidrSet` is a value: it never changes after construction. Lookups are a bisection over disjoint integer
ranges, one list per family, so a list of 100 000 networks costs no more than one of 10.

IPv4 addresses in IPv6 clothes (``::ffff:192.0.2.1``, RFC 4291 section 2.5.5.2) count as IPv4 on both sides;
an IPv6 network such as ``::/0`` therefore holds no IPv4 address.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final, Protocol, Self

from .errors import CidrError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CidrSet", "IPAddress", "IPNetwork", "unmapped"]

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_MAPPED_BITS: Final = 96
_FORM: Final = "write a network such as '192.0.2.0/24' or '2001:db8::/32', or one address"


class _HasIp(Protocol):
    """Anything that knows its address, such as a client address."""

    @property
    def ip(self) -> IPAddress: ...


class _Ranges:
    """Disjoint integer ranges in ascending order."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted((int(net.network_address), int(net.broadcast_address)) for net in networks):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(last, self._lasts[-1])
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def __contains__(self, value: int) -> bool:
        index = bisect_right(self._firsts, value) - 1
        return index >= 0 and value <= self._lasts[index]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class CidrSet:
    """A set of IPv4 and IPv6 networks: ``address in CidrSet(["192.0.2.0/24", "2001:db8::1"])``.

    A bare address is a network of one. Host bits must be zero: a typing error in a list of trusted networks
    is not to be guessed away. Raises `CidrError` that names the bad entry. Equal if the same networks were
    given in the same order.
    """

    networks: tuple[IPNetwork, ...]
    _v4: _Ranges = field(compare=False)
    _v6: _Ranges = field(compare=False)

    def __init__(self, networks: Iterable[str | IPNetwork] = ()) -> None:
        """Take networks, or texts that name them."""
        given = tuple(_unmapped_network(_network(net) if isinstance(net, str) else net) for net in networks)
        object.__setattr__(self, "networks", given)
        object.__setattr__(self, "_v4", _Ranges(net for net in given if net.version == 4))
        object.__setattr__(self, "_v6", _Ranges(net for net in given if net.version == 6))

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Read a list of texts as an option or a file gives it. Raises `CidrError`."""
        return cls(texts)

    def __contains__(self, item: IPAddress | _HasIp) -> bool:
        if not self.networks:
            return False
        ip = unmapped(item if isinstance(item, IPv4Address | IPv6Address) else item.ip)
        return int(ip) in (self._v4 if ip.version == 4 else self._v6)

    def __len__(self) -> int:
        """Count the networks as given, overlapping ones included."""
        return len(self.networks)

    def __iter__(self) -> Iterator[IPNetwork]:
        return iter(self.networks)

    def __repr__(self) -> str:
        return f"CidrSet({[str(net) for net in self.networks]!r})"


def unmapped(ip: IPAddress) -> IPAddress:
    """Return the IPv4 address inside an IPv4-mapped IPv6 address, any other address as it is."""
    return ip if isinstance(ip, IPv4Address) else ip.ipv4_mapped or ip


def _unmapped_network(network: IPNetwork) -> IPNetwork:
    """Return the IPv4 network inside an IPv4-mapped IPv6 network, any other network as it is."""
    if isinstance(network, IPv4Network) or network.prefixlen < _MAPPED_BITS:
        return network
    inner = network.network_address.ipv4_mapped
    return network if inner is None else IPv4Network((inner, network.prefixlen - _MAPPED_BITS))


def _network(text: str) -> IPNetwork:
    """Read ``address`` or ``address/bits``."""
    address_text, slash, bits_text = text.strip().partition("/")
    try:
        address = IPv6Address(address_text) if ":" in address_text else IPv4Address(address_text)
    except AddressValueError:
        raise CidrError(f"{text!r} is not a network: {_FORM}") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise CidrError(f"{text!r} names a zone: leave '%' and what follows out")
    bits = int(bits_text) if _is_prefix_length(bits_text) else -1 if slash else address.max_prefixlen
    if not 0 <= bits <= address.max_prefixlen:
        raise CidrError(
            f"{text!r} needs a prefix length from 0 to {address.max_prefixlen} after the '/': "
            f"write {f'{address}/{address.max_prefixlen}'!r} for this address alone"
        )
    return _strict(text, address, bits)


def _is_prefix_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


def _strict(text: str, address: IPAddress, bits: int) -> IPNetwork:
    """Build the network, or say which one was probably meant."""
    network: IPNetwork = (
        IPv4Network((address, bits), strict=False)
        if isinstance(address, IPv4Address)
        else IPv6Network((address, bits), strict=False)
    )
    if network.network_address != address:
        raise CidrError(f"{text!r} has host bits set: write {str(network)!r}, or {str(address)!r} alone")
    return network
