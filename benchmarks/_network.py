"""A network of two machines on this one: network namespaces, in which loopback's exemptions do not apply.

It needs root and iproute2. The server has the addresses 192.0.2.1 and 2001:db8::1, and clients all of 10.0.0.0/8 and
2001:db8:1000::/36.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator

from _rig import program

SERVER_V4, SERVER_V6 = "192.0.2.1", "2001:db8::1"
CLONE_NEWNET = 0x40000000


def possible() -> bool:
    """Return whether `two_machines` works here."""
    return os.getuid() == 0 and program("ip") is not None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _setns(path: str) -> None:
    with open(path, "rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), f"cannot enter {path!r}")


@contextlib.contextmanager
def two_machines() -> Iterator[str]:
    """Enter the server's namespace of a network of two machines; yield the client's namespace."""
    server, client = f"bench-{os.getpid()}-s", f"bench-{os.getpid()}-c"
    try:
        for namespace in (server, client):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("link", "add", "veth0", "netns", server, "type", "veth", "peer", "veth0", "netns", client)
        for namespace, host in ((server, 1), (client, 2)):
            _ip("-n", namespace, "addr", "add", f"192.0.2.{host}/24", "dev", "veth0")
            _ip("-n", namespace, "addr", "add", f"2001:db8::{host}/64", "dev", "veth0", "nodad")
            _ip("-n", namespace, "link", "set", "veth0", "up")
        for version, clients, via in (("-4", "10.0.0.0/8", "192.0.2.2"), ("-6", "2001:db8:1000::/36", "2001:db8::2")):
            _ip("-n", client, version, "route", "add", "local", clients, "dev", "lo")
            _ip("-n", server, version, "route", "add", clients, "via", via)
        with open("/proc/self/ns/net", "rb") as before:
            _setns(f"/run/netns/{server}")
            try:
                time.sleep(2)  # until the kernel has brought the link up
                yield client
            finally:
                _setns(f"/proc/self/fd/{before.fileno()}")
    finally:
        for namespace in (server, client):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Enter another namespace, such as the client's of `two_machines` to generate load there."""
    with open("/proc/thread-self/ns/net", "rb") as before:
        _setns(f"/run/netns/{namespace}")
        try:
            yield
        finally:
            _setns(f"/proc/self/fd/{before.fileno()}")
