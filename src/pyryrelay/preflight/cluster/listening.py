"""Where other instances are to connect, looked at before the start: is it reachable, and who else could reach it?

`reachable` connects, and is for ``--check`` alone: it cannot see the network as other hosts do, but finds a wrong port,
a wrong address, and a missing mapping of a container. Times are seconds.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyryrelay.config.endpoints import Endpoint, of_workers
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import CidrSet
from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.preflight.checks import CLUSTER_ADVERTISE, CLUSTER_EXPOSED
from pyryrelay.protocol_options import Finding

__all__ = ["exposed_instances", "reachable"]

_TIMEOUT_S: Final = 2.0
_WIDEST: Final = {4: 16, 6: 32}
"""The shortest prefix of a public network that one operator may have, by the version of IP."""
_PRIVATE: Final = CidrSet(
    [
        *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    ]
)


def exposed_instances(settings: SharedSettings) -> Iterator[Finding]:
    """Find that others than the instances could read or reach what they say to each other."""
    advertised = settings.cluster_advertise
    if not settings.cluster_listen:
        return
    if not advertised.startswith("unix:") and _is_public(advertised):
        why = "it is a public address, and what instances say to each other is not encrypted"
        fix = "use an address of a private network, such as that of WireGuard"
        yield Finding(CLUSTER_EXPOSED, f"--cluster-advertise {advertised!r}", why, fix)
    for network in settings.cluster_peers.networks:
        if network.prefixlen < _WIDEST[network.version] and not _is_inside(network):
            why = "it lets strangers connect to --cluster-listen"
            fix = "name the addresses, or the network, of the instances alone"
            yield Finding(CLUSTER_EXPOSED, f"--cluster-peers '{network}'", why, fix)


def _is_inside(network: IPNetwork) -> bool:
    """Return whether a network is part of a private one: none begins in one of them and ends in another."""
    return network[0] in _PRIVATE and network[-1] in _PRIVATE


def _is_public(advertised: str) -> bool:
    host = advertised.rpartition(":")[0].strip("[]")
    return ipaddress.ip_address(host).is_global


def reachable(settings: SharedSettings, base: Path) -> Iterator[Finding]:
    """Find that a connection to the advertised address does not come to the endpoint, by trying."""
    if not settings.cluster_listen:
        return
    count = settings.worker_count
    listen, advertise = of_workers([settings.cluster_listen], count), of_workers([settings.cluster_advertise], count)
    for text, advertised in zip(listen, advertise, strict=True):
        problem = _problem(Endpoint.parse(text), advertised, base)
        if problem:
            fix = f"name the address and the port by which other instances reach --cluster-listen {text!r}"
            yield Finding(CLUSTER_ADVERTISE, f"--cluster-advertise {advertised!r}", problem, fix)


def _problem(endpoint: Endpoint, advertised: str, base: Path) -> str:
    """Return why nothing that connects to the address comes to the endpoint; "" if it does, or cannot be tried."""
    if advertised.startswith("unix:") or endpoint.scheme == "unix":
        is_same = advertised == f"unix:{base / endpoint.argument}" or advertised == f"unix:{endpoint.argument}"
        return "" if is_same or not advertised.startswith("unix:") else "the endpoint is not there"
    host, _, port = advertised.rpartition(":")
    with contextlib.ExitStack() as stack:
        # If it is taken, a relay may run, as before a reload; `endpoints` tells.
        listener = _listener(endpoint, stack)
        try:
            stack.enter_context(socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S))
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            return f"nothing can connect to it from here: {reason}"
        if listener is not None:
            try:
                stack.enter_context(listener.accept()[0])
            except OSError:
                return "something else answers there"
    return ""


def _listener(endpoint: Endpoint, stack: contextlib.ExitStack) -> socket.socket | None:
    """Return a socket that listens on an endpoint for a moment; None if that is not possible."""
    if not endpoint.port:
        return None
    try:
        address = ipaddress.ip_address(endpoint.address)
    except ValueError:
        return None
    sock = stack.enter_context(socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(_TIMEOUT_S)
    try:
        sock.bind((str(address), int(endpoint.port)))
        sock.listen(1)
    except OSError:
        return None
    return sock
