"""The address of a client, derived from the peer address, a forwarding header and the list of trusted proxies.

The *peer address* is that of the TCP connection. The *client address* is derived from it and from one forwarding
header. A proxy appends to ``X-Forwarded-For`` and ``Forwarded`` on the right, so only the right end can be believed:
everything left of the first entry that is not a trusted proxy may have been written by the client, and is not even
read. Other headers, such as ``X-Real-IP``, are overwritten by the proxy and hold one address.

Clients are counted under an `AddressKey` (see `pyryrelay.guard.address.keys`). IPv6 clients are folded to a prefix (64
bits by default), because one subscriber commonly owns all of it.

No text that comes from the network raises an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from pyryrelay.guard.address.embedded import Nat64Prefix, embedded_ipv4, is_translated
from pyryrelay.guard.address.forwarded import MAX_EMPTY_ELEMENTS, forwarded_for, node_address
from pyryrelay.guard.address.keys import AddressKey, address_key
from pyryrelay.guard.address.lists import CidrSet, IPAddress
from pyryrelay.guard.errors import AddressError, TrustError

__all__ = [
    "CHAIN_HEADERS",
    "DEFAULT_IPV6_PREFIX",
    "FORWARDED",
    "FORWARDING_HEADERS",
    "MAX_FORWARDED_ENTRIES",
    "PROXY_SIGNS",
    "X_FORWARDED_FOR",
    "ClientAddress",
    "TrustPolicy",
    "Via",
    "client_address",
    "is_header_name",
]

X_FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"
CHAIN_HEADERS: Final = (X_FORWARDED_FOR, FORWARDED)
"""The headers to which each proxy appends. Every other one holds one address."""

_SIGNS: Final[Mapping[str, str]] = {
    X_FORWARDED_FOR: "most proxies",
    FORWARDED: "proxies that follow RFC 7239",
    "x-real-ip": "nginx and others, if told to",
    "cf-connecting-ip": "Cloudflare",
}
PROXY_SIGNS: Final = frozenset(_SIGNS)
"""Headers that show that there is a proxy: every proxy writes one of these, whatever else it writes."""

FORWARDING_HEADERS: Final[Mapping[str, str]] = {
    **_SIGNS,
    "cf-connecting-ipv6": "Cloudflare, with Pseudo IPv4 overwriting headers",
    "true-client-ip": "Akamai, and Cloudflare Enterprise",
    "fly-client-ip": "Fly.io",
    "fastly-client-ip": "Fastly",
    "x-azure-socketip": "Azure Front Door",
    "x-azure-clientip": "Azure Front Door, from what the client says it is",
    "x-client-ip": "Azure Application Gateway, and others if told to",
    "x-cluster-client-ip": "Rackspace and Zeus load balancers",
    "x-envoy-external-address": "Envoy",
    "x-appengine-user-ip": "Google App Engine",
    "do-connecting-ip": "DigitalOcean",
    "x-vercel-forwarded-for": "Vercel",
    "x-nf-client-connection-ip": "Netlify",
}
"""Headers that are known to name clients, in lower case, and the proxies that write them."""


class Via(IntEnum):
    """How an attempt came, as far as that shows proxies that hide their clients.

    ``UNTRUSTED_HEADERS``: with forwarding headers, from a peer whose headers are not believed. ``FURTHER_HOPS``: the
    chain of a believed peer names others left of the client, which may be a proxy that is missing in the configuration.
    """

    DIRECT = 0
    UNTRUSTED_HEADERS = 1
    FURTHER_HOPS = 2


_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]{1,64}")

DEFAULT_IPV6_PREFIX: Final = 64
"""The prefix length that a subscriber usually gets (RFC 6177)."""

MAX_FORWARDED_ENTRIES: Final = 64
"""Entries of a forwarding header that are read, from the right: no real chain is that long."""

_MAX_TEXT: Final = 128
_MAX_CACHED: Final = 4096
_LOOPBACK_V4: Final = 127
_OWS: Final = " \t"
_UNIX: Final = "unix:"
"""What nginx writes for a client on a UNIX socket."""
_OCTET: Final = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_V4: Final = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}(?::([0-9]{{1,5}}))?")
_V6_BRACKETED: Final = re.compile(r"\[([0-9A-Fa-f:.]{2,45})(?:%[\w.~-]+)?\](?::([0-9]{1,5}))?", re.ASCII)
_V6_BARE: Final = re.compile(r"([0-9A-Fa-f:.]{2,45})(?:%[\w.~-]+)?", re.ASCII)
_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """One client: ``ip`` (never IPv4-mapped, never with a zone) and the ``key`` it is counted under.

    ``text`` is what ``ip`` was read from, if that is its canonical text.
    """

    ip: IPAddress
    key: AddressKey
    text: str | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        """Return the canonical text of the address (RFC 5952)."""
        return self.text or str(self.ip)

    @property
    def is_loopback(self) -> bool:
        """Whether it is the machine itself: 127.0.0.0/8 or ::1."""
        value = int(self.ip)
        return value >> 24 == _LOOPBACK_V4 if isinstance(self.ip, IPv4Address) else value == 1

    def prefix_text(self) -> str:
        """Return the network of the address for logs that must not name it: a /24 of IPv4, a /48 of IPv6."""
        if isinstance(self.ip, IPv4Address):
            return str(IPv4Network((self.ip, 24), strict=False))
        return str(IPv6Network((self.ip, 48), strict=False))


def is_header_name(name: str) -> bool:
    """Tell whether ``name`` can be the name of a header, in lower case (RFC 9110 section 5.1)."""
    return _HEADER_NAME.fullmatch(name) is not None


def client_address(
    text: str, ipv6_prefix: int = DEFAULT_IPV6_PREFIX, nat64: tuple[Nat64Prefix, ...] = ()
) -> ClientAddress | None:
    """Parse one address as forwarding headers carry it, or return None.

    Accepts ``192.0.2.1``, ``192.0.2.1:443``, ``2001:db8::1``, ``[2001:db8::1]``, ``[2001:db8::1]:443``, a
    zone (``fe80::1%eth0``, dropped) and blanks around it. IPv4 addresses inside IPv6 addresses are extracted (see
    `pyryrelay.guard.address.embedded`), also behind translators of the prefixes ``nat64``. Everything else is None:
    ``unknown`` and obfuscated names (RFC 7239 section 6), numbers with leading zeros, ports above 65535. Raises
    `AddressError` for an ``ipv6_prefix`` that is not a prefix length, never for a text.
    """
    return _client_address(text, ipv6_prefix, nat64) if len(text) <= _MAX_TEXT else None


@lru_cache(_MAX_CACHED)
def _client_address(text: str, ipv6_prefix: int, nat64: tuple[Nat64Prefix, ...]) -> ClientAddress | None:
    # Cached because each connection asks several times, and most connections of a flood come from few addresses.
    text = text.strip(_OWS)
    ip = _parse_ip(text)
    if ip is None:
        return None
    if isinstance(ip, IPv4Address):
        # A text that reads as IPv4 is canonical, except for a port.
        return ClientAddress(ip, address_key(ip, 32), None if ":" in text else text)
    value = int(ip)
    ipv4 = embedded_ipv4(value, nat64)
    if ipv4 is not None:
        ip = IPv4Address(ipv4)
        return ClientAddress(ip, address_key(ip, 32))
    # A client with a private address behind a translator shares the prefix with all others behind it.
    return ClientAddress(ip, address_key(ip, 128 if is_translated(value, nat64) else ipv6_prefix))


def _parse_ip(text: str) -> IPAddress | None:
    """Read address, port and zone; return the address alone."""
    found = _V4.fullmatch(text)
    if found is not None:
        a, b, c, d, port = found.groups()
        # From a number, because `ipaddress` takes several times as long to read a text.
        is_good = port is None or _is_port(port)
        return IPv4Address(int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)) if is_good else None
    found = _V6_BRACKETED.fullmatch(text) or _V6_BARE.fullmatch(text)
    if found is None or (found.lastindex == 2 and not _is_port(found[2])):
        return None
    try:
        return IPv6Address(found[1])
    except AddressValueError:
        return None


def _is_port(digits: str) -> bool:
    return int(digits) <= _MAX_PORT and (digits == "0" or not digits.startswith("0"))


# One step of a derivation: a sentence to fill in, the place of an entry, the text read (None for the peer on a UNIX
# socket), and the client so far.
_Step = tuple[str, int, str | None, ClientAddress | None]

_UNTRUSTED: Final = "forwarding headers are not trusted: peer {who} is the client"
_NOT_TRUSTED: Final = "peer {who} is no trusted proxy: it is the client, whatever it forwards"
_BELIEVED: Final = "peer {who} is believed for one hop: no trusted proxies are given"
_TRUSTED: Final = "peer {who} is a trusted proxy"
_NO_ENTRY: Final = "{header} names no client: peer {who} is the client"
_MALFORMED: Final = "{header} is malformed"
_REPEATED: Final = "{header} occurs more than once"
_VALUE: Final = "{header} names {who}, which is the client"
_BAD_VALUE: Final = "{header} is {who}, which is not one address"
_SKIPPED: Final = "entry {place} from the right, {who}, is a trusted proxy: skipped"
_UNIX_SKIPPED: Final = "entry {place} from the right, unix:, is a trusted proxy: skipped"
_FOUND: Final = "entry {place} from the right, {who}, is the client"
_NO_ADDRESS: Final = "entry {place} from the right, {who}, is no address"
_TOO_MANY: Final = "{header} has more than {limit} entries, which no real chain has"
_LEFT_MOST: Final = "all entries are trusted proxies: the left-most, {who}, is the client"
_UNATTRIBUTABLE: Final = "the client cannot be attributed to an address"
_FOLDED: Final = "IPv6 folded to {network}"


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Which peers' forwarding headers are believed, which header that is, and how IPv6 clients are folded.

    With ``trust_forwarded`` off no header is believed. With it on and neither ``proxies`` nor ``trust_unix`` given,
    every peer is believed for one hop, which is right only where none but the proxy can connect. Otherwise a peer must
    be in ``proxies``, or come through a UNIX socket with ``trust_unix`` on. Such peers stand as ``unix:`` in the chains
    that nginx writes. ``nat64`` are the prefixes of translators whose clients count as IPv4. Raises `AddressError` for
    an ``ipv6_prefix`` outside of 1 to 128, and `TrustError` for a ``header`` that is not a name in lower case.

    The proxy must set the ``header`` itself: one that it passes on as the client sent it lets clients choose their
    address. Headers that are not in `CHAIN_HEADERS` hold one address.
    """

    trust_forwarded: bool = False
    proxies: CidrSet = field(default_factory=CidrSet)
    trust_unix: bool = False
    ipv6_prefix: int = DEFAULT_IPV6_PREFIX
    header: str = X_FORWARDED_FOR
    nat64: tuple[Nat64Prefix, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a prefix length that would count all of IPv6 as one client, and what is no header name."""
        if not 1 <= self.ipv6_prefix <= 128:
            raise AddressError(f"IPv6 prefix length {self.ipv6_prefix!r} is out of range: use 1 to 128")
        if not is_header_name(self.header):
            raise TrustError(f"{self.header!r} is no header name in lower case: use one such as 'x-forwarded-for'")
        proxies: object = self.proxies
        if isinstance(proxies, str):
            raise TrustError(f"proxies {proxies!r} is a text: write CidrSet({proxies!r})")
        object.__setattr__(self, "proxies", self.proxies.translated(self.nat64))

    def read(self, text: str) -> ClientAddress | None:
        """Parse one address as `client_address` does, as this policy counts clients."""
        return client_address(text, self.ipv6_prefix, self.nat64)

    def is_proxy(self, peer: str | None) -> bool:
        """Tell whether a peer (its address, or None for a UNIX socket) may set forwarding headers."""
        return self.trust_forwarded and self._believes(peer, None if peer is None else self.read(peer))

    def is_listed(self, peer: str | None) -> bool:
        """Tell whether a peer is one of the configured proxies, even if forwarding headers are not believed."""
        if peer is None:
            return self.trust_unix
        address = self.read(peer)
        return address is not None and address in self.proxies

    def _believes(self, peer: str | None, address: ClientAddress | None) -> bool:
        if not self.trust_forwarded:
            return False
        if not self.proxies and not self.trust_unix:
            return True
        if peer is None:
            return self.trust_unix
        return address is not None and address in self.proxies

    def derive(self, peer: str | None, lines: Sequence[str]) -> ClientAddress | None:
        """Return the client behind ``peer``, or None if it cannot be attributed to an address.

        ``peer`` is the TCP peer's address, or None for a UNIX socket; ``lines`` holds the lines of the policy's header
        in order of appearance. In a header that lists a chain the client is the right-most entry that is not a trusted
        proxy, or the left-most of all if all are. An entry on the way that is not an address, or is malformed, ends the
        search without an answer. Entries further left do not matter. A header with one value must occur once and be one
        address. Without the header, a believed peer is the client itself.
        """
        if not self.trust_forwarded:
            return None if peer is None else self.read(peer)
        client = None
        for _, _, _, client in self._walk(peer, lines):  # noqa: B007
            pass
        return client

    def via(self, lines: Sequence[str], client: ClientAddress | None) -> Via:
        """Return how the ``client`` came that was derived from a believed peer and these lines."""
        if client is None or not lines or self.header not in CHAIN_HEADERS:
            return Via.DIRECT
        first: str | None = lines[0].partition(",")[0]
        if self.header == FORWARDED:
            node = next(forwarded_for([lines[0].partition(",")[0]]), None)
            first = None if node is None else node_address(node)
        left_most = None if first is None else self.read(first)
        has_further_hops = left_most is not None and left_most.key != client.key and left_most not in self.proxies
        return Via.FURTHER_HOPS if has_further_hops else Via.DIRECT

    def explain(self, peer: str | None, lines: Sequence[str]) -> list[str]:
        """Return how `derive` comes to its answer: one plain sentence for each step, printable, in order.

        A text that is not an address is shown shortened and escaped, because any client may have written it.
        """
        sentences: list[str] = []
        client = None
        for sentence, place, text, client in self._walk(peer, lines):
            who = _shown(text, client)
            sentences.append(sentence.format(place=place, who=who, header=self.header, limit=MAX_FORWARDED_ENTRIES))
        if client is None:
            sentences.append(_UNATTRIBUTABLE)
        elif isinstance(client.ip, IPv6Address):
            network = IPv6Network((client.ip, (client.key >> 1).bit_length() - 1), strict=False)
            sentences.append(_FOLDED.format(network=network))
        return sentences

    def _walk(self, peer: str | None, lines: Sequence[str]) -> Iterator[_Step]:
        """Yield the steps from the peer to the client; the client of the last one is the answer."""
        client = None if peer is None else self.read(peer)
        if not self._believes(peer, client):
            yield _NOT_TRUSTED if self.trust_forwarded else _UNTRUSTED, 0, peer, client
            return
        yield _TRUSTED if self.proxies or self.trust_unix else _BELIEVED, 0, peer, client
        if self.header == X_FORWARDED_FOR:
            yield from self._walk_chain(_entries_from_the_right(lines), peer, client)
        elif self.header == FORWARDED:
            yield from self._walk_chain(forwarded_for(lines), peer, client)
        elif lines:
            yield self._value_step(lines)
        else:
            yield _NO_ENTRY, 0, peer, client

    def _walk_chain(
        self, entries: Iterable[str | None], peer: str | None, client: ClientAddress | None
    ) -> Iterator[_Step]:
        """Yield a step for each entry, the right-most first, until one is no trusted proxy."""
        are_nodes = self.header == FORWARDED
        place = 0
        for place, entry in enumerate(entries, start=1):
            if place > MAX_FORWARDED_ENTRIES:
                yield _TOO_MANY, place, None, None
                return
            if entry is None:
                yield _MALFORMED, place, None, None
                return
            if entry == _UNIX and self.trust_unix:
                yield _UNIX_SKIPPED, place, entry, client
                continue
            address = node_address(entry) if are_nodes else entry
            client = None if address is None else self.read(address)
            if client is None or client not in self.proxies:
                yield _NO_ADDRESS if client is None else _FOUND, place, entry, client
                return
            yield _SKIPPED, place, entry, client
        yield _LEFT_MOST if place else _NO_ENTRY, place, peer, client

    def _value_step(self, lines: Sequence[str]) -> _Step:
        """Return the step for a header that holds one address."""
        if len(lines) > 1:
            return _REPEATED, 0, None, None
        client = self.read(lines[0])
        return _BAD_VALUE if client is None else _VALUE, 0, lines[0], client


def _shown(text: str | None, client: ClientAddress | None) -> str:
    """Return the canonical text of an address, or any other text shortened and escaped."""
    if client is not None:
        return str(client)
    return "on a UNIX socket" if text is None else f"{text!a:.60}"


def _entries_from_the_right(lines: Sequence[str]) -> Iterator[str | None]:
    """Yield the entries of all ``X-Forwarded-For`` lines, last one first; None in the place of too many empty ones.

    RFC 9110 section 5.6.1: "A recipient MUST parse and ignore a reasonable number of empty list elements."
    """
    empty = 0
    for line in reversed(lines):
        end = len(line)
        while end >= 0:
            comma = line.rfind(",", 0, end)
            entry = line[comma + 1 : end].strip(_OWS)
            empty += not entry
            if entry or empty > MAX_EMPTY_ELEMENTS:
                yield entry or None
            end = comma
