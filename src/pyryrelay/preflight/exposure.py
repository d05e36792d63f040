"""Settings that are valid but probably a mistake: who can connect, and which addresses are believed. PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from pyryrelay.config.endpoints import Endpoint, for_each_worker, has_worker, is_haproxy
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard.address.clientip import FORWARDING_HEADERS
from pyryrelay.guard.address.embedded import hides_ipv4
from pyryrelay.preflight.checks import (
    FORGED_ADDRESSES,
    NO_ADDRESSES,
    ONE_WORKER,
    PLAIN_LISTENER,
    TRANSLATED_LIST,
    UNKNOWN_HEADER,
)
from pyryrelay.protocol_options import Finding

__all__ = ["exposure"]

_CHOOSES = "any client that can connect there chooses the address that quotas count"


def exposure(settings: SharedSettings) -> list[Finding]:
    """Return what is found, a finding for each listener, the header, and each list."""
    found = [finding for text in settings.listen if (finding := _listener(settings, text)) is not None]
    workers = [finding for text in settings.listen if (finding := _workers(settings, text)) is not None]
    return [*found, *workers, *_header(settings), *_list(settings, "allow"), *_list(settings, "deny")]


def _listener(settings: SharedSettings, text: str) -> Finding | None:
    endpoint = Endpoint.parse(text)
    if endpoint.scheme == "unix" and not (settings.trust_x_forwarded_for or settings.proxy_protocol):
        return Finding(
            NO_ADDRESSES,
            f"--listen {text!r} without --trust-x-forwarded-for",
            "peers of a UNIX-domain socket have no address, so every upgrade is refused with 429",
            "add --trust-x-forwarded-for --trusted-proxy unix",
        )
    if endpoint.is_local:
        return None
    if settings.trusts_every_peer:
        fix = "add --trusted-proxy with your proxy's address, or listen on 127.0.0.1"
        what = f"--trust-x-forwarded-for without --trusted-proxy on {text!r}"
        return Finding(FORGED_ADDRESSES, what, _CHOOSES, fix)
    if is_haproxy(text):
        fix = (
            "write it without haproxy: and add --proxy-protocol --trusted-proxy with your proxy's address, or listen "
            "on 127.0.0.1"
        )
        return Finding(FORGED_ADDRESSES, f"--listen {text!r}", _CHOOSES, fix)
    if endpoint.scheme.startswith("tcp") and not settings.trusted_proxy and not _is_private(endpoint):
        why = "clients from outside connect without TLS, so everybody on their way can read and change what they send"
        fix = (
            "write an ssl: endpoint, or put a proxy with TLS in front, listen on an address that only it can reach, "
            "and name it with --trusted-proxy"
        )
        return Finding(PLAIN_LISTENER, f"--listen {text!r}", why, fix)
    return None


def _workers(settings: SharedSettings, text: str) -> Finding | None:
    """Find a listener behind a proxy that has no endpoint for each worker."""
    count, scheme = settings.worker_count, Endpoint.parse(text).scheme
    if count == 1 or has_worker(text):
        return None
    is_proxied = settings.trust_x_forwarded_for or settings.proxy_protocol or is_haproxy(text)
    if not is_proxied or (scheme != "unix" and settings.trusted_proxy.unix and not settings.trusted_proxy.networks):
        return None
    if scheme == "unix":
        why = f"each worker counts the clients of its own connections, so a client may have its quota {count} times"
    else:
        why = "all connections of one proxy are accepted by one worker, whose core does all handshakes"
    last = count - 1
    fix = (
        f"write --listen {for_each_worker(text, count)!r}, and have the proxy choose from 0 to {last} by the client's "
        "network"
    )
    return Finding(ONE_WORKER, f"--listen {text!r} with --workers {count}", why, fix)


def _is_private(endpoint: Endpoint) -> bool:
    """Tell whether an endpoint is for one address that is not routed on the internet."""
    try:
        address = ipaddress.ip_address(endpoint.address)
    except ValueError:
        return False
    return not address.is_unspecified and not address.is_global


def _header(settings: SharedSettings) -> Iterator[Finding]:
    """Find a name of the header with the client address that may be a typing error."""
    header = settings.client_address_header
    if header not in FORWARDING_HEADERS:
        why = (
            "is not a header that this program knows: it is expected to have one address, and to be overwritten by "
            "your proxy"
        )
        yield Finding(UNKNOWN_HEADER, f"--client-address-header {header!r}", why, "check its spelling")


def _list(settings: SharedSettings, name: str) -> Iterator[Finding]:
    """Find networks of a list whose clients count as IPv4, so that the list does not hold them."""
    networks = getattr(settings, settings.by_name()[name].field).translated(settings.nat64_prefix)
    found = [
        str(network)
        for network in networks
        if network.version == 6 and hides_ipv4(int(network[0]), network.prefixlen, settings.nat64_prefix)
    ]
    if found:
        why = "clients from there count as the IPv4 clients that they are, so the list holds hardly any of them"
        what = f"--{name} {' '.join(found)!r}"
        yield Finding(TRANSLATED_LIST, what, why, "name their IPv4 networks, or remove it")
