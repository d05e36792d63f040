"""What it costs that two instances are one relay: claims, peers at the other instance, and a crowd that reconnects.

Both instances, their Redis server and all that they start run on the cores of servers; CPU time is that of both
instances, and that of Redis is apart. In a cluster, a peer that comes to an instance which does not have its binary is
carried to the other one: its frames go through a *splice*. Beside that, the same peers come to the instance that has
their binary.

* Upgrades of binaries, each of which claims its server-id in Redis; beside a relay without a cluster.
* Upgrades of phones, frames of 1 KiB, MiB of frames of 16 KiB, and round trips, each through a splice and without.
* 10,000 binaries, connected to both instances, are disconnected at once. All come back as fast as they are answered,
  half of them to the other instance.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import socket
import sys
import time
from collections.abc import Callable, Sequence

import _traffic
from _accepting import Accepting, binary_heads, phone_heads
from _attempts import addresses, binary_head, open_upgraded, reset
from _cluster import Cluster, cluster, run_bench
from _rig import OURS, Row, Server, alternate, relay
from _round_trips import RoundTrips

DIRECT, ALONE = "direct", "no cluster"
CROWD, QUICK_CROWD = 10_000, 500
PAIRS = 100
PAYLOAD_BYTES = 200
MIB = 1 << 20
SETTLE_S = 0.5


def claims(world: Cluster, rounds: int, count: int) -> list[Row]:
    """Measure upgrades of binaries."""
    at_redis: list[float] = []
    with relay() as server:
        alone = Accepting(server, binary_heads, count)
        ours = Accepting(world.first, binary_heads, count)

        def claimed() -> float:
            before_s = world.redis.cpu_s()
            found = ours.measure()
            at_redis.append((world.redis.cpu_s() - before_s) / count * 1e6)
            return found

        found = alternate(rounds, {OURS: claimed, ALONE: alone.measure})
    return [
        Row("upgrade of a binary that claims its server-id", "µs", found, baseline=ALONE),
        Row("the same with its end", "µs", {OURS: ours.whole_us, ALONE: alone.whole_us}, baseline=ALONE),
        Row("a claim and its release, at Redis", "µs", {OURS: at_redis}, "at most 15"),
    ]


def splices(world: Cluster, rounds: int, for_s: float, count: int) -> list[Row]:
    """Measure what comes to the wrong instance."""
    places = {OURS: world.second, DIRECT: world.first}

    def compare(name: str, unit: str, target: str, measure: Callable[[Server], float]) -> Row:
        calls = {who: functools.partial(measure, place) for who, place in places.items()}
        return Row(name, unit, alternate(rounds, calls), target, baseline=DIRECT)

    def streaming(size_bytes: int, each: float, up: bool) -> Callable[[Server], float]:
        def measure(place: Server) -> float:
            load = _traffic.stream(place, size_bytes, for_s, up=up, binary_at=world.first)
            return load.server_s / load.frames * each * 1e6

        return measure

    def trips(place: Server) -> float:
        with RoundTrips(place, PAIRS, PAYLOAD_BYTES, binaries_at=world.first) as pairs:
            load = pairs.run(for_s)
        return load.server_s / load.frames * 2e6

    rows = [spliced_upgrades(world, rounds, count)]
    for way, up in (("to the binary", True), ("to phones", False)):
        frames, mib = streaming(1024, 1, up), streaming(16384, MIB / 16384, up)
        rows.append(compare(f"frame of 1 KiB {way}, through a splice", "µs", f"at most 1.4 x {DIRECT}", frames))
        rows.append(compare(f"MiB in frames of 16 KiB {way}, through a splice", "µs", f"at most 1.4 x {DIRECT}", mib))
    rows.append(compare(f"round trip, {PAIRS} pairs, through a splice", "µs", f"at most 2 x {DIRECT}", trips))
    return rows


def spliced_upgrades(world: Cluster, rounds: int, count: int) -> Row:
    """Measure upgrades of phones."""
    binaries = open_upgraded(world.first, [binary_head("theirs")])
    try:
        found = {
            who: Accepting(place, lambda: phone_heads(binaries), count).measure
            for who, place in ((OURS, world.second), (DIRECT, world.first))
        }
        return Row("upgrade of a phone, through a splice", "µs", alternate(rounds, found), baseline=DIRECT)
    finally:
        reset(binaries)


def crowd(world: Cluster, count: int) -> list[Row]:
    """Measure binaries that come back."""
    both, sources = (world.first, world.second), addresses()
    heads = [binary_head(f"crowd-{number}") for number in range(count)]
    half, quarter = count // 2, count // 4

    def connect(first: Sequence[bytes], second: Sequence[bytes]) -> tuple[float, float, float]:
        """Return the time until all are answered, and the CPU time of the instances and of Redis."""
        began_s, cpu_s, redis_s = time.monotonic(), world.first.cpu_s(), world.redis.cpu_s()
        opened = [sock for place, theirs in zip(both, (first, second), strict=True) for sock in come(place, theirs)]
        took_s = time.monotonic() - began_s
        spent_s = world.first.cpu_s(SETTLE_S) - cpu_s, world.redis.cpu_s() - redis_s
        reset(opened)
        return took_s, *spent_s

    def come(place: Server, theirs: Sequence[bytes]) -> list[socket.socket]:
        return open_upgraded(place, theirs, sources)

    connect(heads[:half], heads[half:])
    took_s, cpu_s, redis_s = connect(heads[quarter : quarter + half], heads[:quarter] + heads[quarter + half :])
    return [
        Row(f"{count:,} binaries reconnect: until all are answered", "s", {OURS: [took_s]}, "at most 10"),
        Row(f"{count:,} binaries reconnect: CPU for each", "µs", {OURS: [cpu_s / count * 1e6]}),
        Row(f"{count:,} binaries reconnect: CPU for each, at Redis", "µs", {OURS: [redis_s / count * 1e6]}),
    ]


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure everything."""
    rounds = options.rounds or (1 if options.quick else 5)
    for_s, count = (0.1, 200) if options.quick else (0.4, 1000)
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(cluster())
        rows = claims(world, rounds, count)
        rows += splices(world, rounds, for_s, count)
        return rows + crowd(world, QUICK_CROWD if options.quick else CROWD)


def main() -> int:
    """Measure, and print the results."""
    return run_bench(__doc__ or "", bench)


if __name__ == "__main__":
    sys.exit(main())
