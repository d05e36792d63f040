"""The options about the addresses of clients: which proxies and headers name them, and who counts as one. PURE."""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyryrelay.config.endpoints import Endpoint, is_haproxy
from pyryrelay.config.groups import CLIENTS
from pyryrelay.config.sources import option
from pyryrelay.config.types import (
    HEADER_NAME,
    NAT64_PREFIXES,
    PROXIES,
    SWITCH,
    TrustedProxies,
    whole_number,
)
from pyryrelay.guard.address.clientip import FORWARDED, X_FORWARDED_FOR
from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.guard.address.lists import CidrSet

__all__ = ["ClientOptions", "client_problem"]


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """The options about the addresses of clients."""

    trust_x_forwarded_for: bool = option(
        False,
        SWITCH,
        CLIENTS,
        help="Take the client address from the `X-Forwarded-For` header that your proxy sets, instead of from TCP. "
        "Name the proxy with `--trusted-proxy` if clients could bypass it.",
        example="true",
        why="Anyone can send the header: without a proxy, clients could choose their own address.",
    )
    client_address_header: str = option(
        X_FORWARDED_FOR,
        HEADER_NAME,
        CLIENTS,
        help="The header that `--trust-x-forwarded-for` reads: one that your proxy writes, and never one that it "
        "passes on from clients. `x-forwarded-for` and `forwarded` (RFC 7239) are chains to which each proxy appends. "
        "Any other header is expected to have one address, and to be overwritten by the proxy, such as `x-real-ip`, "
        "`cf-connecting-ip`, `true-client-ip`, `fly-client-ip` or `x-azure-socketip`.",
        example=FORWARDED,
        why="nginx, haproxy and most other proxies write it.",
    )
    proxy_protocol: bool = option(
        False,
        SWITCH,
        CLIENTS,
        help="Expect the PROXY protocol, version 1 or 2, on every endpoint, from trusted proxies only; other peers are "
        "dropped. TLS then ends at the proxy. Prefer it to Twisted's `haproxy:` endpoints, which trust any peer.",
        restart=True,
        example="true",
        why="Both sides must use it.",
    )
    trusted_proxy: TrustedProxies = option(
        TrustedProxies(CidrSet()),
        PROXIES,
        CLIENTS,
        help="A peer that may set forwarding headers, or send PROXY headers with `--proxy-protocol`: an address, a "
        "network, or `unix` for peers on a UNIX-domain socket. Entries of these proxies are skipped from the right of "
        "the forwarding header, with `unix` also the entry `unix:` that nginx writes for such a peer. With "
        "`--trust-x-forwarded-for` and no `--trusted-proxy`, every peer is trusted, for one hop.",
        example=("10.0.0.0/8", "unix"),
        why="Only you know the addresses of your proxies.",
    )
    ipv6_prefix: int = option(
        64,
        whole_number(32, 128),
        CLIENTS,
        help="How many leading bits of an IPv6 address identify a client: addresses that share them share one quota.",
        example="56",
        why="Providers assign a /64 or more to one customer, who could otherwise use a new address for each attempt.",
    )
    nat64_prefix: tuple[Nat64Prefix, ...] = option(
        (),
        NAT64_PREFIXES,
        CLIENTS,
        help="A prefix under which a translator of yours (NAT64, SIIT) shows IPv4 clients, of length 32, 40, 48, 56, "
        "64 or 96 (RFC 6052). Such clients count as the IPv4 address inside, at accept, in forwarding headers and in "
        "lists, like those of `64:ff9b::/96`, `::ffff:0:0:0/96` (SIIT), `2002::/16` (6to4) and IPv4-mapped addresses "
        "always do. A private or loopback address inside stays IPv6 and gains no privilege.",
        example="2001:db8:64::/96",
        why="Only you know the prefixes of your network.",
    )

    @property
    def trusts_every_peer(self) -> bool:
        """Whether the forwarding headers of every peer are trusted."""
        return self.trust_x_forwarded_for and not self.trusted_proxy


def client_problem(options: ClientOptions, listen: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the option, the problem and the fix if the options contradict each other, or the public endpoints."""
    trusted = " ".join(PROXIES.write(options.trusted_proxy))
    if trusted and not (options.trust_x_forwarded_for or options.proxy_protocol):
        problem = f"{trusted!r} has no effect without --trust-x-forwarded-for"
        fix = "add --trust-x-forwarded-for or --proxy-protocol, or remove --trusted-proxy"
        return "trusted-proxy", problem, fix
    header = options.client_address_header
    if header != X_FORWARDED_FOR and not options.trust_x_forwarded_for:
        problem = f"{header!r} has no effect without --trust-x-forwarded-for"
        return "client-address-header", problem, "add --trust-x-forwarded-for, or remove it"
    found = _proxy_protocol_problem(options.trusted_proxy, listen) if options.proxy_protocol else None
    return None if found is None else ("proxy-protocol", *found)


def _proxy_protocol_problem(proxies: TrustedProxies, listen: Sequence[str]) -> tuple[str, str] | None:
    if not proxies:
        problem = "'true' without --trusted-proxy would drop all clients"
        return problem, "add --trusted-proxy with your proxy's address"
    for text in listen:
        scheme = Endpoint.parse(text).scheme
        if scheme == "ssl" or is_haproxy(text):
            problem = f"'true' does not work with --listen {text!r}, which does not start with a PROXY header"
            return problem, "use tcp: or unix: endpoints, and end TLS at the proxy"
        problem = f"'true' would drop all clients on --listen {text!r}"
        if scheme == "unix" and not proxies.unix:
            return problem, "add --trusted-proxy unix"
        if scheme.startswith("tcp") and not proxies.networks:
            return problem, "add --trusted-proxy with your proxy's address"
    return None
