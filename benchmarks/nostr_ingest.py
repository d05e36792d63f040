"""Publishing signed events: many at once, one at a time, and with wrong signatures over quota.

Eight connections pipeline 20,000 events of about 730 B in turn; an event is done when its OK has arrived, and ours is
on the disk by then, which nostr-sdk's LocalRelay, in memory, does not do. The server's CPU time is that of all its
processes. The same is measured with 300,000 events stored beforehand, without signatures, since larger indexes cost
more. Server and load share all cores, since the server has several processes; the database is on the disk of the
temporary folder. One at a time, the next event is sent when the OK of the one before has arrived; the row's note says
how long the disk takes to flush. Over quota, events have wrong signatures and their client has spent its quota.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import _nostr
from _nostr import LOCAL_RELAY, NOSTR_RELAY, Client, Publisher, Signer
from _rig import OURS, Row, Server, arguments, peer, publish, relay
from nostr_queries import AUTHORS, build

CONNECTIONS, EVENTS, QUICK_EVENTS = 8, 20_000, 3000
SLOW_EVENTS = 1500
"""Fewer for the relay that takes a millisecond for each."""
STORED, QUICK_STORED = 300_000, 20_000
ALONE, FLUSHES = 300, 200
REFUSED = 5000
LIMITED = (
    *("--nostr", "--no-pyry", "--nostr-event-quota", "1/minute burst 1", "--nostr-message-quota", "off"),
    *("--nostr-byte-quota", "off", "--nostr-invalid-quota", "off", "--nostr-database", "sqlite::memory:"),
)


@contextlib.contextmanager
def on_disk(stored: int = 0) -> Iterator[Server]:
    """Run ours with its database on a disk, not in memory, and with so many events in it."""
    with tempfile.TemporaryDirectory(prefix="pyryrelay-bench-") as where:
        if stored:
            source = random.Random(5)
            build(Path(where, "nostr.sqlite"), stored, [source.randbytes(32).hex() for _ in range(AUTHORS)])
        with _nostr.ours("--nostr-database", f"sqlite:{where}/nostr.sqlite") as server:
            yield server


def into_filled(signer: Signer, stored: int, count: int, rounds: int) -> list[tuple[float, float]]:
    """Publish to a relay with many events; return what `pipelined` does for each round."""
    with on_disk(stored) as server:
        return [pipelined(server, signer, count) for _ in range(rounds)]


def pipelined(server: Server, signer: Signer, count: int) -> tuple[float, float]:
    """Publish; return events per second, and microseconds of the server's CPU time for each."""
    frames = [_nostr.publishing(event.json) for event in signer.events(count)]
    publisher = Publisher(server, [frames[number::CONNECTIONS] for number in range(CONNECTIONS)])
    _nostr.use_all_cores(server)
    before_s, began_s = server.cpu_s(0.2), time.perf_counter()
    publisher.run()
    wall_s = time.perf_counter() - began_s
    spent_s = server.cpu_s(0.3) - before_s
    publisher.close()
    return count / wall_s, 1e6 * spent_s / count


def one_at_a_time(server: Server, signer: Signer, count: int) -> float:
    """Return the median time from EVENT to OK in milliseconds."""
    client, events = Client(server, "127.0.0.8"), signer.events(count)
    found = _nostr.percentiles_ms([_nostr.timed(lambda event=event: client.publish(event)) for event in events])[0]  # type: ignore[misc]
    client.close()
    return found


def flush_ms() -> float:
    """Return how long the disk of the temporary folder takes to flush 4 KiB, in milliseconds (median)."""
    with tempfile.TemporaryFile(prefix="pyryrelay-bench-") as file:
        samples = []
        for _ in range(FLUSHES):
            os.write(file.fileno(), b"x" * 4096)
            samples.append(_nostr.timed(lambda: os.fdatasync(file.fileno())))
    return 1000 * statistics.median(samples)


def refused_us(signer: Signer, count: int) -> float:
    """Return the CPU time of an event with a wrong signature from a client that is over its quota."""
    with relay(*LIMITED) as server:
        client = Client(server, "127.0.0.8")
        client.publish(signer.event())
        frames = b"".join(_nostr.publishing(_nostr.spoiled(event)) for event in signer.events(count))
        before_s = server.cpu_s(0.3)
        answers = 0
        for begin in range(0, len(frames), 1 << 16):
            client.sock.sendall(frames[begin : begin + (1 << 16)])
            if begin == 0 and not client.receive().startswith(b'["OK"'):
                raise SystemExit("the first event was not answered")
            answers += begin == 0
        while answers < count:
            if b"rate-limited: " not in client.receive():
                raise SystemExit("an event was not refused for its rate")
            answers += 1
        spent_s = server.cpu_s(0.3) - before_s
        client.close()
    return 1e6 * spent_s / count


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure all."""
    rounds = options.rounds or (1 if options.quick else 3)
    count = QUICK_EVENTS if options.quick else EVENTS
    signer = Signer()
    with contextlib.ExitStack() as stack:
        servers: dict[str, Callable[[], contextlib.AbstractContextManager[Server]]] = {
            OURS: on_disk,
        }
        if _nostr.has_local_relay():
            servers[LOCAL_RELAY] = _nostr.local_relay
        if _nostr.has_nostr_relay():
            servers[NOSTR_RELAY] = _nostr.nostr_relay
        if options.peer:
            servers[options.peer] = lambda: peer(options.peer)
        running = {who: stack.enter_context(start()) for who, start in servers.items()}
        speed: dict[str, list[float]] = {who: [] for who in running}
        cost: dict[str, list[float]] = {who: [] for who in running}
        alone: dict[str, list[float]] = {who: [] for who in running}
        for _ in range(rounds):
            for who, server in running.items():
                rate, us = pipelined(server, signer, min(count, SLOW_EVENTS) if who == NOSTR_RELAY else count)
                speed[who].append(rate)
                cost[who].append(us)
                alone[who].append(one_at_a_time(server, signer, 50 if options.quick else ALONE))
    flush = f"the disk of ours flushes 4 KiB in {flush_ms():.2f} ms"
    stored = QUICK_STORED if options.quick else STORED
    filled = into_filled(signer, stored, count, rounds)
    refused = [refused_us(signer, 1000 if options.quick else REFUSED) for _ in range(rounds)]
    return [
        Row("durable ingest, 8 connections", "events/s", speed, "at least 10000", "higher", LOCAL_RELAY, flush),
        Row("durable ingest, 8 connections", "us of CPU", cost, "at most 100", baseline=LOCAL_RELAY),
        Row(
            f"the same with {stored:,} stored",
            "events/s",
            {OURS: [rate for rate, _ in filled]},
            "at least 10000",
            "higher",
        ),
        Row(f"the same with {stored:,} stored", "us of CPU", {OURS: [us for _, us in filled]}, "at most 100"),
        Row("EVENT to OK, one at a time, p50", "ms", alone, "at most 3", baseline=LOCAL_RELAY, note=flush),
        Row("event with a wrong signature, over quota", "us of CPU", {OURS: refused}, "at most 15"),
    ]


if __name__ == "__main__":
    parsed = arguments(__doc__ or "")
    publish(bench(parsed), parsed)
    sys.exit(0)
