"""Sets of networks, for allow lists, deny lists and trusted proxies.

A `CidrSet` is a value: it never changes after construction. Lookups are one bisection over the edges of disjoint
integer ranges, one list per family, so a list of 100 000 networks costs little more than one of 10.

IPv4 addresses inside IPv6 addresses (``::ffff:192.0.2.1``, ``64:ff9b::192.0.2.1``; see
`pyryrelay.guard.address.embedded`) count as IPv4 on both sides; an IPv6 network such as ``::/0`` therefore holds no
IPv4 address.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Final, Protocol, Self

from pyryrelay.guard.address.embedded import Nat64Prefix, embedded_ipv4, embedded_network
from pyryrelay.guard.errors import CidrError

__all__ = ["CidrSet", "IPAddress", "IPNetwork"]

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_ADDRESSES: Final = (IPv4Address, IPv6Address)
_SINGLE: Final = (str, IPv4Network, IPv6Network)
_RUN: Final = 4096
_FORM: Final = "write a network such as '192.0.2.0/24' or '2001:db8::/32', or one address"


class _HasIp(Protocol):
    """Anything that knows its address, such as a client address."""

    @property
    def ip(self) -> IPAddress: ...


@dataclass(frozen=True, init=False, repr=False)
class CidrSet:
    """A set of IPv4 and IPv6 networks: ``address in CidrSet(["192.0.2.0/24", "2001:db8::1"])``.

    A bare address is a network of one, and one network alone needs no list: ``CidrSet("10.0.0.0/8")``. Host bits must
    be zero: a typing error in a list of trusted networks must not be corrected by a guess. Raises `CidrError` that
    names the bad entry. Sets are equal if the same addresses are inside, in whichever form and order they were given.
    """

    _codes: tuple[int, ...] = field(compare=False)
    _edges_v4: tuple[int, ...]
    _edges_v6: tuple[int, ...]

    def __init__(self, networks: Iterable[str | IPNetwork] | str | IPNetwork = ()) -> None:
        """Take networks, or texts that name them; one, or any number of them."""
        # A text is a sequence of texts, and a network one of addresses, but neither is meant so.
        if isinstance(networks, _SINGLE):
            networks = (networks,)
        self._fill(tuple(_text_code(net) if isinstance(net, str) else _network_code(net) for net in networks))

    def _fill(self, codes: tuple[int, ...]) -> None:
        object.__setattr__(self, "_codes", codes)
        object.__setattr__(self, "_edges_v4", _edges((code for code in codes if not code & 1), 32))
        object.__setattr__(self, "_edges_v6", _edges((code for code in codes if code & 1), 128))

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Read a list of texts as an option or a file gives it. Raises `CidrError`."""
        return cls(texts)

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """The networks as given; made anew on every access."""
        return tuple(self)

    def __contains__(self, item: IPAddress | _HasIp | str) -> bool:
        if not self._codes:
            return False
        ip = item if isinstance(item, _ADDRESSES) else _text_address(item) if isinstance(item, str) else item.ip
        value = int(ip)
        is_v4 = isinstance(ip, IPv4Address)
        if not is_v4 and (ipv4 := embedded_ipv4(value)) is not None:
            value, is_v4 = ipv4, True
        # Behind an odd number of edges is inside.
        return bisect_right(self._edges_v4 if is_v4 else self._edges_v6, value) & 1 == 1

    def range_around(self, item: IPAddress | _HasIp) -> tuple[IPAddress, IPAddress] | None:
        """Return first and last address of the unbroken range of the set that an address is in, or None."""
        if item not in self:
            return None
        ip = item if isinstance(item, _ADDRESSES) else item.ip
        value = int(ip)
        is_v4 = isinstance(ip, IPv4Address)
        if not is_v4 and (ipv4 := embedded_ipv4(value)) is not None:
            value, is_v4 = ipv4, True
        edges = self._edges_v4 if is_v4 else self._edges_v6
        place = bisect_right(edges, value)
        first, last = edges[place - 1], edges[place] - 1
        return (IPv4Address(first), IPv4Address(last)) if is_v4 else (IPv6Address(first), IPv6Address(last))

    def __or__(self, other: CidrSet) -> CidrSet:
        """Return the networks of both, those of ``self`` first."""
        if not (self and other):
            return self or other
        union = CidrSet()
        union._fill(self._codes + other._codes)
        return union

    def translated(self, prefixes: Sequence[Nat64Prefix]) -> CidrSet:
        """Return the same networks, with those behind translators of these prefixes as the IPv4 networks they are."""
        if not any(map(self._touches, prefixes)):
            return self
        codes = (_code(code >> 9, code >> 1 & 0xFF, True, prefixes) if code & 1 else code for code in self._codes)
        networks = CidrSet()
        networks._fill(tuple(codes))
        return networks

    def _touches(self, prefix: Nat64Prefix) -> bool:
        """Tell whether there are addresses of the prefix in the set, without searching it from end to end."""
        last = prefix.first | (1 << 128 - prefix.bits) - 1
        place = bisect_right(self._edges_v6, prefix.first)
        return place & 1 == 1 or bisect_right(self._edges_v6, last) != place

    def __len__(self) -> int:
        """Count the networks as given, overlapping ones included."""
        return len(self._codes)

    def __iter__(self) -> Iterator[IPNetwork]:
        return map(_decoded, self._codes)

    def __repr__(self) -> str:
        return f"CidrSet({[str(net) for net in self]!r})"


# A network is kept as one integer, a tenth of the memory of an object: first address, prefix length (8 bits), family.


def _code(first: int, bits: int, is_v6: bool, prefixes: Sequence[Nat64Prefix] = ()) -> int:
    """Return the code of a network; of one that stands for an IPv4 network, the code of that."""
    if is_v6 and (inside := embedded_network(first, bits, prefixes)) is not None:
        (first, bits), is_v6 = inside, False
    return first << 9 | bits << 1 | is_v6


def _network_code(network: IPNetwork) -> int:
    return _code(int(network.network_address), network.prefixlen, network.version == 6)


def _decoded(code: int) -> IPNetwork:
    first, bits = code >> 9, code >> 1 & 0xFF
    return IPv6Network((first, bits)) if code & 1 else IPv4Network((first, bits))


def _edges(codes: Iterable[int], width: int) -> tuple[int, ...]:
    """Return the disjoint ranges that the networks cover: the first address of each, and the one past its last."""
    edges: list[int] = []
    end = -1
    for code in _sorted(codes):
        first = code >> 9
        past = first + (1 << width - (code >> 1 & 0xFF))
        if first > end:
            edges += (first, past)
        elif past > end:
            edges[-1] = past
        end = max(end, past)
    return tuple(edges)


def _sorted(codes: Iterable[int]) -> Iterator[int]:
    """Sort in runs and merge them: one sort of a long list would keep all other threads waiting until its end."""
    remaining = iter(codes)
    runs = []
    while run := sorted(islice(remaining, _RUN)):
        runs.append(run)
    return merge(*runs)


def _text_code(text: str) -> int:
    """Read ``address`` or ``address/bits``."""
    address_text, slash, bits_text = text.strip().partition("/")
    is_v6 = ":" in address_text
    try:
        address = IPv6Address(address_text) if is_v6 else IPv4Address(address_text)
    except AddressValueError:
        raise CidrError(f"{text!r} is not a network: {_FORM}") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise CidrError(f"{text!r} names a zone: leave '%' and what follows out")
    width = 128 if is_v6 else 32
    bits = int(bits_text) if _is_prefix_length(bits_text) else -1 if slash else width
    if not 0 <= bits <= width:
        raise CidrError(
            f"{text!r} needs a prefix length from 0 to {width} after the '/': "
            f"write {f'{address}/{width}'!r} for this address alone"
        )
    first = int(address)
    if first & (1 << width - bits) - 1:
        meant = ip_network((address, bits), strict=False)
        raise CidrError(f"{text!r} has host bits set: write {str(meant)!r}, or {str(address)!r} alone")
    return _code(first, bits, is_v6)


def _text_address(text: str) -> IPAddress:
    """Read ``address``."""
    try:
        return ip_address(text.strip())
    except ValueError:
        raise CidrError(f"{text!r} is not an address: ask for one such as '192.0.2.7'") from None


def _is_prefix_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3
