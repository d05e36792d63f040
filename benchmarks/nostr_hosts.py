"""Events between two hosts: published at one instance of a cluster, delivered to a subscriber of the other.

Each instance has its own database, and both share a Redis server. A client publishes 100 events a second at the first
instance, and the time from sending to each delivery is measured at a subscriber of the second one, and then at one of
the first. Then events are published as fast as they are answered, until the subscriber of the other instance has all of
them. CPU time is that of all processes of both instances, which both verify and store each event; beside it is that of
one relay without a cluster, whose subscriber gets the same events.
"""

from __future__ import annotations

import argparse
import sys
import time

import _nostr
from _cluster import Cluster, cluster, run_bench
from _frames import TrafficError
from _nostr import Client, Signed, Signer
from _rig import OURS, Row, Server
from nostr_fanout import delivery_bytes

HERE, ALONE = "the same host", "one relay"
PACED, PER_S, QUICK_PACED = 300, 100, 50
BURST, QUICK_BURST = 4000, 300
WARM_S = 30.0
OPTIONS = (*(word for word in _nostr.OPEN if word != "--no-pyry"),)


class Subscriber:
    """A connection that is sent every new event."""

    def __init__(self, server: Server) -> None:
        self._client = Client(server, "127.0.0.8")
        self._client.send("REQ", "sub0", {"limit": 0})
        if not self._client.receive().startswith(b'["EOSE"'):
            raise TrafficError("a subscription was refused")

    def take(self, event: Signed) -> None:
        """Wait for an event, which is the next one."""
        message = self._client.receive()
        if event.json not in message:
            raise TrafficError(f"another event was delivered: {message[:100]!r}")

    def take_bytes(self, size_bytes: int) -> None:
        """Read that much."""
        while size_bytes > 0:
            data = self._client.sock.recv(min(size_bytes, 1 << 18))
            if not data:
                raise TrafficError("a subscriber was disconnected")
            size_bytes -= len(data)

    def close(self) -> None:
        """End the connection."""
        self._client.close()


def warm_up(world: Cluster, signer: Signer) -> None:
    """Publish events until one arrives at the other instance."""
    end_s = time.monotonic() + WARM_S
    publisher, reader = Client(world.first, "127.0.0.9"), Client(world.second, "127.0.0.10")
    while time.monotonic() < end_s:
        event = signer.event()
        publisher.publish(event)
        time.sleep(0.2)
        if reader.fetch({"ids": [event.id]}):
            publisher.close()
            reader.close()
            return
    raise SystemExit("no event reaches the other instance")


def paced(at: Server, subscribed_at: Server, signer: Signer, count: int) -> tuple[float, float]:
    """Publish some events a second; return p50 and p99 of the time until the subscriber has each, in milliseconds."""
    publisher, subscriber = Client(at, "127.0.0.9"), Subscriber(subscribed_at)
    samples = []
    next_s = time.perf_counter()
    for _ in range(count):
        event = signer.event()
        time.sleep(max(0.0, next_s - time.perf_counter()))
        sent_s = time.perf_counter()
        publisher.sock.sendall(_nostr.publishing(event.json))
        subscriber.take(event)
        samples.append(time.perf_counter() - sent_s)
        next_s = max(next_s + 1 / PER_S, time.perf_counter() - 1.0)
    publisher.close()
    subscriber.close()
    return _nostr.percentiles_ms(samples)


def burst(at: Server, subscribed_at: Server, signer: Signer, count: int) -> tuple[float, float]:
    """Publish as fast as possible; return delivered events per second, and microseconds of CPU time for each."""
    subscriber = Subscriber(subscribed_at)
    events = signer.events(count)
    publisher = _nostr.Publisher(at, [[_nostr.publishing(event.json) for event in events]])
    before_s, began_s = at.cpu_s(0.5), time.perf_counter()
    publisher.run()
    subscriber.take_bytes(sum(map(delivery_bytes, events)))
    wall_s = time.perf_counter() - began_s
    spent_s = at.cpu_s(1.0) - before_s
    publisher.close()
    subscriber.close()
    return count / wall_s, spent_s / count * 1e6


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure both."""
    count, many = (QUICK_PACED, QUICK_BURST) if options.quick else (PACED, BURST)
    signer = Signer()
    with cluster(*OPTIONS) as world:
        _nostr.use_all_cores(world.first)
        warm_up(world, signer)
        there, here = (paced(world.first, each, signer, count) for each in (world.second, world.first))
        found = [burst(world.first, world.second, signer, many) for _ in range(1 if options.quick else 3)]
    with _nostr.ours() as server:
        _nostr.use_all_cores(server)
        alone = [burst(server, server, signer, many) for _ in found]
    name = "event of another host"
    costs = {OURS: [cost for _, cost in found], ALONE: [cost for _, cost in alone]}
    return [
        Row(f"{name} at 100 events/s, until it is delivered, p50", "ms", {OURS: [there[0]], HERE: [here[0]]}),
        Row(f"{name} at 100 events/s, until it is delivered, p99", "ms", {OURS: [there[1]], HERE: [here[1]]}),
        Row(f"{name}, as fast as possible", "events/s", {OURS: [rate for rate, _ in found]}, "", "higher"),
        Row(f"{name}, both instances", "us of CPU", costs, baseline=ALONE),
    ]


def main() -> int:
    """Measure, and print the results."""
    return run_bench(__doc__ or "", bench)


if __name__ == "__main__":
    sys.exit(main())
