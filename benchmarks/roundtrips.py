"""Round trips from a phone through the relay to a binary and back, 200 B each way, one frame in flight per pair.

There are 1, 100 and 1,000 pairs, each with its own server-id. The load generator runs both ends on one loop, and waits
like any client. Latencies are measured from a phone's sending to its reading of the answer. With many pairs, most of
that is waiting for other pairs, so rate and median carry the same information, and the 99th percentile shows whether
the server is fair. Each pair's first round trip is compared byte by byte, the others by their size.

Rival: plain Autobahn. A relay given by ``--peer`` must have its limits disabled.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import _traffic
from _page import percentile
from _rig import AUTOBAHN, OURS, Row, Server, alternate, peer, relay, rival
from _round_trips import RoundTrips

PAYLOAD_BYTES = 200
PAIRS, QUICK_PAIRS = (1, 100, 1000), (1, 100)
FOR_S, QUICK_FOR_S = 1.5, 0.3
P50_TARGETS = {1: f"at most 0.7 x {AUTOBAHN}"}
RATE_TARGETS = {100: f"at least 2.3 x {AUTOBAHN}"}
MAX_TAIL = 3


@dataclass
class Found:
    """The results of one contestant, by round."""

    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def measure(server: Server, pairs: int, for_s: float, found: Found) -> float:
    """Make round trips for some time; return their number per second."""
    with RoundTrips(server, pairs, PAYLOAD_BYTES) as trips:
        load = trips.run(for_s)
    p50_s, p99_s = (percentile(load.latencies_s, percent) for percent in (50, 99))
    found.p50_us.append(p50_s * 1e6)
    found.p99_us.append(p99_s * 1e6)
    found.tail.append(p99_s / p50_s)
    found.cpu_us.append(load.server_s / load.frames * 2e6)
    return len(load.latencies_s) / load.wall_s


def compare(servers: dict[str, Server], pairs: int, rounds: int, for_s: float) -> list[Row]:
    """Return the rows for one number of pairs."""
    found: defaultdict[str, Found] = defaultdict(Found)
    calls: dict[str, Callable[[], float]] = {
        who: functools.partial(measure, server, pairs, for_s, found[who]) for who, server in servers.items()
    }
    rates = alternate(rounds, calls)
    p50s = {who: found[who].p50_us for who in servers}
    name = f"round trips, {pairs:,} pair{'s' * (pairs > 1)}"
    return [
        Row(name, "a second", rates, RATE_TARGETS.get(pairs, ""), "higher", AUTOBAHN),
        Row(f"{name}, CPU", "µs", {who: found[who].cpu_us for who in servers}, baseline=AUTOBAHN),
        Row(f"{name}, p50", "µs", p50s, P50_TARGETS.get(pairs, ""), "lower", AUTOBAHN),
        Row(f"{name}, p99", "µs", {who: found[who].p99_us for who in servers}, baseline=AUTOBAHN),
        Row(f"{name}, p99 / p50", "times", {who: found[who].tail for who in servers}, f"at most {MAX_TAIL}"),
    ]


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure all numbers of pairs."""
    rounds = options.rounds or (1 if options.quick else 3)
    for_s = QUICK_FOR_S if options.quick else FOR_S
    with contextlib.ExitStack() as stack:
        servers = {OURS: stack.enter_context(relay()), AUTOBAHN: stack.enter_context(rival("autobahn_forward"))}
        if options.peer:
            servers[options.peer] = stack.enter_context(peer(options.peer))
        rows = []
        for pairs in QUICK_PAIRS if options.quick else PAIRS:
            rows += compare(servers, pairs, rounds, for_s)
        return rows


if __name__ == "__main__":
    _traffic.run(__doc__ or "", bench)
