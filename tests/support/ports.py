"""Ports for programs that cannot be given a socket."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

LOCALHOST = "127.0.0.1"
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Hypothesis seeds the module's own generator, so that all processes of a run would choose alike.
_random = random.SystemRandom()


def free_port(second: int = 0) -> int:
    """Return a port of IPv4's loopback on which nothing listens now, nor on the one that is higher by ``second``.

    It is none of the kernel's ephemeral ports: a client may get one of those between this call and the start of the
    program.
    """
    first = int(_RANGE.read_text(encoding="ascii").split()[0]) if _RANGE.exists() else 32768
    while True:
        port = _random.randrange(max(1024, first - 12_000), first - second)
        with contextlib.suppress(OSError):
            for each in {port, port + second}:
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((LOCALHOST, each))
            return port
