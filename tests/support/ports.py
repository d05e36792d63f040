"""Ports for programs that cannot be given a socket."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Set
from pathlib import Path

LOCALHOST = "127.0.0.1"
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_END = int(_RANGE.read_text(encoding="ascii").split()[0]) if _RANGE.exists() else 32768
_FIRST = max(1024, _END - 12_000)
# Hypothesis seeds the module's own generator, so that all processes of a run would choose alike.
_random = random.SystemRandom()


def free_port(second: int = 0) -> int:
    """Return a port of IPv4's loopback on which nothing listens now, nor on the one that is higher by ``second``.

    It is none of the kernel's ephemeral ports: a client may get one of those between this call and the start of the
    program.
    """
    while True:
        port = _random.randrange(_FIRST, _END - second)
        if _are_free({port, port + second}):
            return port


def worker_ports(count: int) -> int:
    """Return a number to which the digit of each of ``count`` workers is appended; see `free_port`."""
    while True:
        stem = _random.randrange(_FIRST // 10 + 1, _END // 10 - 1)
        if _are_free({stem * 10 + index for index in range(count)}):
            return stem


def _are_free(ports: Set[int]) -> bool:
    with contextlib.suppress(OSError):
        for port in ports:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((LOCALHOST, port))
        return True
    return False
