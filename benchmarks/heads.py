"""CPU time of the most expensive request heads that we could construct, each of the largest size.

The whole decision about a head is measured in this process, behind a trusted proxy, pinned to the server's core: parse
it, derive its client, and refuse or accept it. What a client of a proxy writes must not delay all other clients.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from twisted.internet.testing import MemoryReactorClock

from _rig import OURS, Row, arguments, pin_server, publish
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.message import MAX_FIELDS, MAX_HEAD_BYTES
from pyryrelay.http.routing import decide
from pyryrelay.mounts import Settings
from pyryrelay.service import build

PROXY = "10.0.0.7"
CLIENT = "198.51.100.7"
HEADS, QUICK_HEADS = 2_000, 200
ROOM = MAX_HEAD_BYTES - 700
USUAL = (
    "GET /v1/client HTTP/1.1",
    "Host: relay.example",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "User-Agent: x",
    "X-Pyrycode-Server: x",
)
CONNECTION = "Connection: Upgrade"


def heads(header: str) -> Mapping[str, bytes]:
    """Return heads by what makes them expensive; the first one is an ordinary head."""
    forwarded = header == "forwarded"
    client = f"for={CLIENT}" if forwarded else CLIENT
    name = "Forwarded" if forwarded else "X-Forwarded-For"
    entry = 'for="[2001:db8::1]:80"' if forwarded else "2001:db8::1"
    many = [f"X-{number}: {'x' * (ROOM // MAX_FIELDS - 10)}" for number in range(MAX_FIELDS - 10)]
    lines = {
        "usual": (CONNECTION, f"{name}: {client}"),
        "commas": (CONNECTION, f"{name}: {',' * ROOM}{client}"),
        "entries": (CONNECTION, f"{name}: {f'{entry}, ' * (ROOM // (len(entry) + 2))}{client}"),
        "quotes": (CONNECTION, f"{name}: {'for=' if forwarded else ''}{chr(34) * ROOM}, {client}"),
        "members": (f"Connection: Upgrade{',' * ROOM}", f"{name}: {client}"),
        "fields": (CONNECTION, *many, f"{name}: {client}"),
        "key": (CONNECTION, f"Sec-WebSocket-Key: {'A' * ROOM}", f"{name}: {client}"),
        "control": (CONNECTION, f"X: {'x' * ROOM}\x01", f"{name}: {client}"),
    }
    return {what: "\r\n".join([*USUAL, *more, "", ""]).encode("latin-1") for what, more in lines.items()}


def context_for(header: str) -> ListenerContext:
    """Return the context of a listener without quotas."""
    settings = Settings(
        trust_x_forwarded_for=True,
        trusted_proxy=TrustedProxies(CidrSet(["10.0.0.0/8"])),
        client_address_header=header,
        jail_file="",
        upgrade_quota=None,
        prefix_quota=None,
        http_quota=None,
        jail_after=None,
    )
    return build(settings, MemoryReactorClock()).http_factory().context


def measure(context: ListenerContext, head: bytes, count: int) -> float:
    """Return the microseconds per head."""
    began_s = time.process_time()
    for _ in range(count):
        decide(context, head, PROXY)
    return (time.process_time() - began_s) / count * 1e6


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    pin_server()
    rounds = options.rounds or (1 if options.quick else 5)
    count = QUICK_HEADS if options.quick else HEADS
    usual: list[float] = []
    most_expensive: list[float] = []
    cases = {header: (context_for(header), heads(header)) for header in ("x-forwarded-for", "forwarded")}
    for _ in range(rounds):
        found = {
            f"{header} {what}": measure(context, head, count)
            for header, (context, found_heads) in cases.items()
            for what, head in found_heads.items()
        }
        usual.append(found.pop("x-forwarded-for usual"))
        what, cost = max(found.items(), key=lambda item: item[1])
        most_expensive.append(cost)
        print(f"    {what}: {cost:.0f} µs", file=sys.stderr)
    results = {OURS: most_expensive, "an ordinary one": usual}
    publish([Row("the most expensive request head", "µs", results, "at most 1000")], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
