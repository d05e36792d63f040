"""Resident memory of the server per idle connection, in bytes.

It is the growth of the server's proportional set size after a number of upgrades, divided by that number. Half of our
connections are binaries, the other half phones, one for each binary. Every connection has its own address, and quotas
have their defaults. Plain Autobahn accepts every client and keeps no state about it. With TLS, the ``ssl:`` endpoint
has a certificate with an elliptic-curve key.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from _attempts import addresses, binary_head, open_upgraded, phone_head, reset
from _rig import AUTOBAHN, OURS, Row, Server, alternate, arguments, publish, relay, rival

SETTLE_S = 1.0
WARM_UP = 40
OPTIONS = ("--max-connections", "20000", "--prefix-quota", "off")
SPARE_FILES = 200


def heads(count: int) -> Iterator[bytes]:
    """Yield the heads of ``count`` connections: pairs of a binary and its phone."""
    for number in range(count):
        yield (phone_head if number % 2 else binary_head)(f"binary-{number // 2}")


def bytes_each(server: AbstractContextManager[Server], count: int, *, tls: bool) -> float:
    """Start a server, open connections, and return the growth of its memory per connection."""
    with server as running:
        reset(open_upgraded(running, heads(WARM_UP), addresses(), tls))
        time.sleep(SETTLE_S / 2)
        before = running.resident_bytes()
        socks = open_upgraded(running, heads(count), addresses(), tls)
        time.sleep(SETTLE_S)
        grown = running.resident_bytes() - before
        reset(socks)
        return grown / count


def row(count: int, rounds: int, target: str, *, tls: bool) -> Row:
    """Measure ours and plain Autobahn in turn."""
    measured = {
        OURS: lambda: bytes_each(relay(*OPTIONS, tls=tls, generous=False), count, tls=tls),
        AUTOBAHN: lambda: bytes_each(rival("autobahn_deny", "--accept", tls=tls), count, tls=tls),
    }
    name = f"idle connection with TLS, {count:,} of them" if tls else f"idle connection, {count:,} of them"
    return Row(name, "resident bytes", alternate(rounds, measured), target, baseline=AUTOBAHN)


def main() -> int:
    """Measure, and print the results."""
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
