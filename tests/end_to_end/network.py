"""A network of two machines: that of the test, `SERVER`, and one from which many clients connect.

Each is a network namespace. The thread of a test moves into the first for the length of the test, and so does
everything that it starts; a socket stays in the namespace that it was made in, so one test can be both sides. The
machine's own network is not touched. Needs root and iproute2; the tests are skipped without.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.end_to_end.harness import DEADLINE_S, until

SERVER_V4, SERVER_V6 = "192.0.2.1", "2001:db8::1"
CLIENTS_V4, CLIENTS_V6 = "198.51.100.0/24", "2001:db8:1::/48"
"""Clients may have any address of these."""

_CLONE_NEWNET = 0x40000000
_IPV6_FREEBIND = 78
"""From linux/in6.h; the socket module does not have it."""
_HERE = "/proc/thread-self/ns/net"
_TRY_S = 0.3
_WIRE_V4, _WIRE_V6 = "192.0.2.2", "2001:db8::2"


def _setns(path: str) -> None:
    with open(path, "rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {path!r}")


@contextlib.contextmanager
def within(namespace: str) -> Iterator[None]:
    """Move this thread to another namespace for the block: sockets that it makes belong there."""
    with open(_HERE, "rb") as before:
        _setns(f"/run/netns/{namespace}")
        try:
            yield
        finally:
            _setns(f"/proc/self/fd/{before.fileno()}")


class Network:
    """The network that the module's docstring describes."""

    def __init__(self) -> None:
        name = f"pyryrelay-e2e-{os.getpid()}"
        self.server, self.client = f"{name}-s", f"{name}-c"

    def build(self) -> None:
        """Make it. Raises `subprocess.CalledProcessError` where that is not permitted."""
        for namespace in (self.server, self.client):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("link", "add", "wire", "netns", self.server, "type", "veth", "peer", "wire", "netns", self.client)
        for namespace, v4, v6 in ((self.server, SERVER_V4, SERVER_V6), (self.client, _WIRE_V4, _WIRE_V6)):
            ip("-n", namespace, "addr", "add", f"{v4}/24", "dev", "wire")
            ip("-n", namespace, "addr", "add", f"{v6}/64", "dev", "wire", "nodad")
            ip("-n", namespace, "link", "set", "wire", "up")
        for clients, via in ((CLIENTS_V4, _WIRE_V4), (CLIENTS_V6, _WIRE_V6)):
            version = "-6" if ":" in clients else "-4"
            ip("-n", self.client, version, "route", "add", "local", clients, "dev", "lo")
            ip("-n", self.server, version, "route", "add", clients, "via", via)

    def passes(self, source: str) -> bool:
        """Tell whether the link takes packets of this client: the kernel needs a second to bring it up."""
        family, host = (socket.AF_INET6, SERVER_V6) if ":" in source else (socket.AF_INET, SERVER_V4)
        with socket.create_server((host, 0), family=family) as listener:
            try:
                self.connection(source, listener.getsockname()[1], _TRY_S).close()
            except OSError:
                return False
            return True

    def remove(self) -> None:
        """Remove all parts of it, however far `build` came."""
        for namespace in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False, timeout=DEADLINE_S)

    def connection(self, source: str, port: int, timeout_s: float) -> socket.socket:
        """Connect one of the clients to a port of the server. Raises `TimeoutError` without an answer."""
        family, target = (socket.AF_INET6, SERVER_V6) if ":" in source else (socket.AF_INET, SERVER_V4)
        with within(self.client):
            sock = socket.socket(family)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            sock.bind((source, 0))
            sock.settimeout(timeout_s)
            sock.connect((target, port))
        except BaseException:
            sock.close()
            raise
        return sock


class Built(Protocol):
    """Network namespaces: `build` makes them, and `remove` removes them however far that came."""

    def build(self) -> None: ...

    def remove(self) -> None: ...


def ip(*arguments: str) -> None:
    """Run the command of this name. Raises `subprocess.CalledProcessError` if it fails."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=DEADLINE_S)


@contextlib.contextmanager
def built_or_skip(network: Built) -> Iterator[None]:
    """Make a network for the block, or skip the test with the reason why that is not possible."""
    if shutil.which("ip") is None:
        pytest.skip("the command 'ip' is missing (Debian: iproute2)")
    if os.getuid() != 0:
        pytest.skip("network namespaces need root")
    try:
        try:
            network.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr!r}")
        yield
    finally:
        network.remove()


@contextlib.contextmanager
def network_or_skip() -> Iterator[Network]:
    """Make a network with this thread on its server, or skip with a reason."""
    network = Network()
    with built_or_skip(network):
        assert Path(f"/run/netns/{network.server}").exists()
        with within(network.server):
            for source in ("198.51.100.1", "2001:db8:1::1"):
                until(functools.partial(network.passes, source), "the wire is up")
            yield network
