"""Memory of the Nostr relay: idle connections with subscriptions, and clients that ask for everything and never read.

Memory is the growth of the proportional set size of all processes. Subscriptions have filters as clients send them: a
few authors, kinds, and an `#e`. The clients that do not read ask twenty times for the newest 500 events, with small
receive buffers, from their own addresses; meanwhile, and once their buffers are full, another client asks for one
author's events.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import _nostr
from _nostr import Client, Publisher, Signer
from _rig import OURS, Row, Server, arguments, publish

CONNECTIONS, QUICK_CONNECTIONS, SUBSCRIPTIONS = 1000, 200, 10
GREEDY, QUICK_GREEDY, ASKED_FOR = 500, 50, 20
STORED = 3000
MIB = 1 << 20


def subscribe(server: Server, count: int, source: random.Random) -> list[Client]:
    """Open connections with ten subscriptions each."""
    clients = []
    for number in range(count):
        client = Client(server, f"127.2.{number // 200}.{1 + number % 200}")
        for subscription in range(SUBSCRIPTIONS):
            authors = [source.randbytes(32).hex() for _ in range(3)]
            wanted: dict[str, object] = {"authors": authors, "kinds": [1, 6, 7], "limit": 0}
            if subscription % 3 == 0:
                wanted = {"#e": [source.randbytes(32).hex()], "kinds": [1, 7], "limit": 0}
            client.send("REQ", f"subscription-{subscription}", wanted)
        for _ in range(SUBSCRIPTIONS):
            client.receive()
        clients.append(client)
    return clients


def idle_bytes(server: Server, count: int) -> float:
    """Return the growth of memory for each idle connection with its subscriptions."""
    source = random.Random(11)
    warm = subscribe(server, 50, source)
    for client in warm:
        client.close()
    time.sleep(1.0)
    before = server.resident_bytes()
    clients = subscribe(server, count, source)
    time.sleep(1.0)
    grown = server.resident_bytes() - before
    for client in clients:
        client.close()
    return grown / count


def not_reading(server: Server, count: int, asked: int) -> tuple[float, float, float, float]:
    """Return the growth in MiB, and a reader's p99 in ms before, while they arrive, and afterwards."""
    _nostr.use_all_cores(server)
    signer = Signer(20)
    frames = [_nostr.publishing(event.json) for event in signer.events(STORED)]
    publisher = Publisher(server, [frames])
    publisher.run()
    publisher.close()

    def ask() -> float:
        reader = Client(server, "127.0.0.8")
        samples = [
            _nostr.timed(lambda: reader.fetch({"authors": [signer.pubkeys[0]], "limit": 50})) for _ in range(asked)
        ]
        reader.close()
        return _nostr.percentiles_ms(samples)[1]

    quiet = ask()
    time.sleep(0.5)
    before = server.resident_bytes()
    clients = []
    for number in range(count):
        client = Client(server, f"127.3.{number // 200}.{1 + number % 200}", receive_buffer=4096)
        for subscription in range(ASKED_FOR):
            client.send("REQ", f"all{subscription}", {})
        clients.append(client)
    attacked = ask()
    time.sleep(2.0)
    afterwards = ask()
    grown = (server.resident_bytes() - before) / MIB
    for client in clients:
        client.close()
    return grown, quiet, attacked, afterwards


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure both."""
    with _nostr.ours() as server:
        idle = idle_bytes(server, QUICK_CONNECTIONS if options.quick else CONNECTIONS)
    with _nostr.ours() as server:
        greedy = QUICK_GREEDY if options.quick else GREEDY
        grown, quiet, attacked, afterwards = not_reading(server, greedy, 100 if options.quick else 300)
    name = f"{greedy} clients that ask for everything and read nothing"
    return [
        Row("idle connection with 10 subscriptions", "resident bytes", {OURS: [idle]}, f"at most {16 * 1024}"),
        Row(f"{name}, together", "resident MiB", {OURS: [grown]}, "at most 160"),
        Row(
            f"{name}: another client's REQ, p99",
            "ms",
            {"attacked": [attacked], "quiet": [quiet]},
            "at most 3 x quiet",
            baseline="quiet",
        ),
        Row(
            f"{name}, and have been sent what fits: another client's REQ, p99",
            "ms",
            {"attacked": [afterwards], "quiet": [quiet]},
            "at most 3 x quiet",
            baseline="quiet",
        ),
    ]


if __name__ == "__main__":
    parsed = arguments(__doc__ or "")
    publish(bench(parsed), parsed)
    sys.exit(0)
