"""Live delivery: one publisher, a thousand matching subscriptions of ten thousand that are open.

A thousand connections have ten subscriptions each: one by the publisher's key, nine for others' keys. The publisher
sends as fast as it is answered, and deliveries are counted by their bytes. Then it publishes 100 events a second, and
the time from sending to each delivery is measured. CPU time is that of all processes of the server; ours also verifies
and stores every event.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import sys
import time
from collections.abc import Sequence

import _nostr
from _frames import TrafficError
from _nostr import LOCAL_RELAY, Client, Signed, Signer
from _rig import OURS, Row, Server, arguments, publish

CONNECTIONS, SUBSCRIPTIONS, QUICK_CONNECTIONS = 1000, 10, 100
FAST, QUICK_FAST = 600, 100
PACED, PER_S = 300, 100
CHUNK_BYTES = 1 << 18
QUIET_S = 20.0


class Audience:
    """Connections with subscriptions, which count what they are sent."""

    def __init__(self, server: Server, signer: Signer, count: int) -> None:
        self.clients = []
        self._poll = select.epoll()
        self._by_fd = {}
        for number in range(count):
            client = Client(server, f"127.1.{number // 200}.{1 + number % 200}")
            for subscription in range(SUBSCRIPTIONS):
                author = signer.pubkeys[0] if not subscription else f"{number * 10 + subscription:064x}"
                client.send("REQ", f"sub{subscription}", {"authors": [author], "limit": 0})
            for _ in range(SUBSCRIPTIONS):
                if not client.receive().startswith(b'["EOSE"'):
                    raise TrafficError("a subscription was refused")
            client.sock.setblocking(False)
            self._poll.register(client.sock.fileno(), select.EPOLLIN)
            self._by_fd[client.sock.fileno()] = client.sock
            self.clients.append(client)
        self.received_bytes = 0

    def take(self, timeout_s: float) -> int:
        """Read what has arrived; return the number of bytes."""
        before = self.received_bytes
        for fd, _ in self._poll.poll(timeout_s, 256):
            data = self._by_fd[fd].recv(CHUNK_BYTES)
            if not data:
                raise TrafficError("a subscriber was disconnected")
            self.received_bytes += len(data)
        return self.received_bytes - before

    def take_all(self, expected_bytes: int) -> None:
        """Read until that many bytes have arrived in all. Raises `TrafficError` if they do not come."""
        end_s = time.monotonic() + QUIET_S
        while self.received_bytes < expected_bytes:
            if self.take(1.0):
                end_s = time.monotonic() + QUIET_S
            elif time.monotonic() > end_s:
                raise TrafficError(f"only {self.received_bytes} of {expected_bytes} bytes were delivered")

    def close(self) -> None:
        """Close all."""
        for client in self.clients:
            client.close()


def delivery_bytes(event: Signed) -> int:
    """Return the length of the frame in which a subscription gets an event."""
    size = len(b'["EVENT","sub0",') + len(event.json) + 1
    return size + (4 if size > 125 else 2)


def flood(server: Server, signer: Signer, audience: Audience, count: int) -> tuple[float, float]:
    """Publish as fast as possible; return deliveries per second, and microseconds of CPU time for each."""
    events = [signer.event() for _ in range(count)]
    expected = sum(map(delivery_bytes, events)) * len(audience.clients)
    publisher = Client(server, "127.0.0.9")
    audience.received_bytes = 0
    before_s, began_s = server.cpu_s(0.3), time.perf_counter()
    publisher.sock.sendall(b"".join(_nostr.publishing(event.json) for event in events))
    audience.take_all(expected)
    wall_s = time.perf_counter() - began_s
    spent_s = server.cpu_s(0.2) - before_s
    publisher.close()
    deliveries = count * len(audience.clients)
    return deliveries / wall_s, 1e6 * spent_s / deliveries


def paced(server: Server, signer: Signer, audience: Audience, count: int) -> float:
    """Publish 100 events a second; return the p99 of the time until everybody has an event, in milliseconds."""
    publisher = Client(server, "127.0.0.10")
    samples = []
    next_s = time.perf_counter()
    for _ in range(count):
        event = signer.event()
        audience.received_bytes = 0
        while (left_s := next_s - time.perf_counter()) > 0:
            audience.take(left_s)
        sent_s = time.perf_counter()
        publisher.sock.sendall(_nostr.publishing(event.json))
        audience.take_all(delivery_bytes(event) * len(audience.clients))
        samples.append(time.perf_counter() - sent_s)
        next_s += 1 / PER_S
    publisher.close()
    return _nostr.percentiles_ms(samples)[1]


def measure(server: Server, options: argparse.Namespace) -> Sequence[float]:
    """Return deliveries per second, CPU time of one, and the p99 of the latency."""
    _nostr.use_all_cores(server)
    signer = Signer(1)
    audience = Audience(server, signer, QUICK_CONNECTIONS if options.quick else CONNECTIONS)
    speed, cost = flood(server, signer, audience, QUICK_FAST if options.quick else FAST)
    latency = paced(server, signer, audience, 50 if options.quick else PACED)
    audience.close()
    return speed, cost, latency


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure ours and LocalRelay in turn."""
    found: dict[str, list[Sequence[float]]] = {OURS: [], LOCAL_RELAY: []}
    for _ in range(options.rounds or (1 if options.quick else 2)):
        rivals = [(LOCAL_RELAY, _nostr.local_relay)] if _nostr.has_local_relay() else []
        for who, start in [(OURS, _nostr.ours), *rivals]:
            with contextlib.suppress(TrafficError) if who != OURS else contextlib.nullcontext(), start() as server:
                found[who].append(measure(server, options))
    speed, cost, latency = ({who: [f[n] for f in figures] for who, figures in found.items()} for n in range(3))
    name = "fan-out to 1,000 of 10,000 subscriptions"
    return [
        Row(name, "deliveries/s", speed, "at least 150000", "higher", LOCAL_RELAY),
        Row(name, "us of CPU", cost, "at most 6", baseline=LOCAL_RELAY),
        Row(f"{name} at 100 events/s, the last delivery, p99", "ms", latency, "at most 50", baseline=LOCAL_RELAY),
    ]


if __name__ == "__main__":
    parsed = arguments(__doc__ or "")
    publish(bench(parsed), parsed)
    sys.exit(0)
