"""Resident memory that an idle connection costs the server, in bytes.

The server's proportional set size after so many upgrades, less that before, divided by them. Half of the connections to
ours are binaries, the other half phones, one for each binary; every connection comes from an address of its own, and
quotas are as they are by default. Plain Autobahn accepts everybody and knows nothing of them. With TLS, the ``ssl:``
endpoint has an elliptic-curve certificate of its own.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from _attempts import addresses, binary_head, opened, phone_head, reset
from _rig import AUTOBAHN, OURS, Row, Server, alternate, arguments, publish, relay, rival

SETTLE_S = 1.0
WARM_UP = 40
OPTIONS = ("--max-connections", "20000", "--prefix-quota", "off")
SPARE_FILES = 200


def heads(count: int) -> Iterator[bytes]:
    """Of ``count`` connections: pairs of a binary and its phone."""
    for number in range(count):
        yield (phone_head if number % 2 else binary_head)(f"binary-{number // 2}")


def bytes_each(server: AbstractContextManager[Server], count: int, *, tls: bool) -> float:
    """Start a server, open so many connections, and look."""
    with server as running:
        reset(opened(running, heads(WARM_UP), addresses(), tls))
        time.sleep(SETTLE_S / 2)
        before = running.resident_bytes()
        socks = opened(running, heads(count), addresses(), tls)
        time.sleep(SETTLE_S)
        grown = running.resident_bytes() - before
        reset(socks)
        return grown / count


def row(count: int, rounds: int, target: str, *, tls: bool) -> Row:
    """Ours and plain Autobahn, in turn."""
    measured = {
        OURS: lambda: bytes_each(relay(*OPTIONS, tls=tls, generous=False), count, tls=tls),
        AUTOBAHN: lambda: bytes_each(rival("autobahn_deny", "--accept", tls=tls), count, tls=tls),
    }
    name = f"idle connection with TLS, {count:,} of them" if tls else f"idle connection, {count:,} of them"
    return Row(name, "resident bytes", alternate(rounds, measured), target, baseline=AUTOBAHN)


def main() -> int:
    """Measure and tell."""
    options = arguments(__doc__ or "")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
    plain, tls = (min(count, most) for count in ((1000, 300) if options.quick else (10_000, 2000)))
    rounds = options.rounds or 1
    rows = [
        row(plain, rounds, f"at most {10 * 1024}", tls=False),
        row(tls, rounds, f"at most {40 * 1024}", tls=True),
    ]
    publish(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
