"""Round trips of an honest pair while binaries flood the relay with input that is expensive to process.

16 flooding binaries have one client address, 100 have seven. They send empty envelopes (``{}``), or messages in empty
fragments, as fast as the relay reads them, from a process of their own. The honest pair has another process and its own
address. The round trips without and with the flood are measured in the same run, with the quota of dropped envelopes
off, so that only the fair queue protects the pair. Percentiles above the median mean nothing here: a process with
real-time priority that is always busy keeps the kernel from delivering packets until the scheduler stops it. Then the
flood's process is killed, and the time is measured for which the relay continues to process what was left.
"""

from __future__ import annotations

import select
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection

from _attempts import binary_head, open_upgraded
from _honest import MASK, child_process, masked, run_honest_pair
from _rig import OURS, Row, Server, arguments, die_with_parent, publish, relay

FRAGMENTS = 1000
"""Fragments of one message; the relay accepts 1024."""
FLOODS = {
    "envelopes `{}`": masked(b"{}"),
    "empty fragments": b"\x01\x80" + MASK + (b"\x00\x80" + MASK) * (FRAGMENTS - 2) + b"\x80\x80" + MASK,
}
CROWDS = {"16 binaries of 1 address": (16, 1), "100 binaries of 7 addresses": (100, 7)}
TARGETS = {16: "at most 10 x quiet", 100: "at most 35"}
OPTIONS = ("--dropped-envelope-quota", "off")
QUIET = "quiet"
BLOCK_BYTES = 1 << 17
QUIET_S, ATTACK_S, QUICK_S = 1.0, 4.0, 1.0
LOOK_S, IDLE_SHARE, PATIENCE_S = 0.1, 0.1, 40.0


def flood(server: Server, frames: bytes, count: int, addresses: int, pipe: Connection) -> None:
    """Open ``count`` connections, report that, wait for the start, and send as much as possible until killed."""
    die_with_parent()
    sources = (f"127.77.{number % addresses}.1" for number in range(count))
    socks = open_upgraded(server, (binary_head(f"flood-{number}") for number in range(count)), sources)
    pipe.send(len(socks))
    pipe.recv()
    block = frames * max(1, BLOCK_BYTES // len(frames))
    rest = {sock.fileno(): (sock, memoryview(block)) for sock in socks}
    poll = select.epoll()
    for sock in socks:
        sock.setblocking(False)
        poll.register(sock, select.EPOLLOUT)
    while rest:
        for fd, _ in poll.poll():
            sock, left = rest[fd]
            try:
                sent = sock.send(left)
                rest[fd] = sock, left[sent:] or memoryview(block)
            except OSError:
                poll.unregister(fd)
                del rest[fd]
    pipe.send("closed")


def round_trips(
    server: Server, attack: Callable[[Connection], None], for_s: float, *, tls: bool = False
) -> Iterator[float]:
    """Yield the honest pair's median round trips without and with an attack (ms), and the busy time after it (s).

    ``attack`` runs in a process of its own, reports when it is ready, and starts when it receives a message.
    """
    with child_process(attack) as (attackers, _):
        attackers.recv()
        with child_process(partial(run_honest_pair, tls=tls), server) as (honest, _):
            time.sleep(QUIET_S / 2)  # until the pair is connected
            for begin, time_s in ((False, QUIET_S), (True, for_s)):
                if begin:
                    attackers.send(True)
                    time.sleep(QUIET_S / 2)
                honest.send(True)
                honest.recv()
                time.sleep(time_s)
                honest.send(True)
                times_ms: list[float] = honest.recv()
                # A pair that waited for the whole time has had no round trip at all.
                times_ms = times_ms or [time_s * 1000]
                yield statistics.median(times_ms)
            honest.send(False)
    yield busy_s(server)


def busy_s(server: Server) -> float:
    """Return how long the server continues to use more than a tenth of a core."""
    began_s = time.perf_counter()
    before_s = server.cpu_s()
    while (spent_s := time.perf_counter() - began_s) < PATIENCE_S:
        now_s = server.cpu_s(LOOK_S)
        if now_s - before_s < IDLE_SHARE * LOOK_S:
            break
        before_s = now_s
    return spent_s


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    rounds, for_s = (1, QUICK_S) if options.quick else (2, ATTACK_S)
    rows = []
    for who, crowd in CROWDS.items():
        for what, frames in FLOODS.items():
            found: list[list[float]] = []
            for _ in range(options.rounds or rounds):
                with relay(*OPTIONS, generous=False) as server:
                    found.append(list(round_trips(server, partial(flood, server, frames, *crowd), for_s)))
            quiet, attacked, busy = (list(column) for column in zip(*found, strict=True))
            name = f"{who} send {what}"
            p50 = {OURS: attacked, QUIET: quiet}
            rows += [
                Row(f"round trip of others, {name}", "ms, p50", p50, TARGETS[crowd[0]], baseline=QUIET),
                Row(f"busy after they left, {name}", "s", {OURS: busy}, "at most 2"),
            ]
    publish(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
