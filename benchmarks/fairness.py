"""Round trips of an honest pair while binaries flood the relay with what is expensive to process.

16 flooding binaries have one client address; 100 have seven. They send envelopes that say nothing (``{}``), or messages
in empty fragments, as fast as the relay takes them, from a process of their own; the honest pair has another one and an
address of its own. Quiet and attacked are measured in the same run, with the quota of dropped envelopes off, so that
nothing but the sharing of CPU time protects the pair. Higher percentiles say nothing here: a process with real-time
priority that is always busy keeps the kernel from delivering packets until the scheduler stops it. Afterwards the
flood's process is killed, and what counts is how long the relay goes on working off what it left.
"""

from __future__ import annotations

import select
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection

from _attempts import binary_head, opened
from _honest import MASK, child, masked, sample
from _rig import OURS, Row, Server, arguments, die_with_parent, publish, relay

FRAGMENTS = 1000
"""Of one message; the relay takes 1024."""
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


def flood(server: Server, frames: bytes, count: int, addresses: int, told: Connection) -> None:
    """Open so many connections, say so, wait to be told to begin, and send as much as they take until killed."""
    die_with_parent()
    sources = (f"127.77.{number % addresses}.1" for number in range(count))
    socks = opened(server, (binary_head(f"flood-{number}") for number in range(count)), sources)
    told.send(len(socks))
    told.recv()
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
    told.send("closed")


def round_trips(
    server: Server, attack: Callable[[Connection], None], for_s: float, *, tls: bool = False
) -> Iterator[float]:
    """The honest pair's median round trip, quiet and attacked (ms); how long the work goes on afterwards (s).

    ``attack`` runs in a process of its own: it says when it is ready, and begins when it is told to.
    """
    with child(attack) as (attackers, _):
        attackers.recv()
        with child(partial(sample, tls=tls), server) as (honest, _):
            time.sleep(QUIET_S / 2)  # until the pair is there
            for begin, time_s in ((False, QUIET_S), (True, for_s)):
                if begin:
                    attackers.send(True)
                    time.sleep(QUIET_S / 2)
                honest.send(True)
                honest.recv()
                time.sleep(time_s)
                honest.send(True)
                times_ms: list[float] = honest.recv()
                # Who waits for as long as it was measured has had no round trip at all.
                times_ms = times_ms or [time_s * 1000]
                yield statistics.median(times_ms)
            honest.send(False)
    yield busy_s(server)


def busy_s(server: Server) -> float:
    """How long the server goes on using more than a tenth of a core."""
    began_s = time.perf_counter()
    before_s = server.cpu_s()
    while (spent_s := time.perf_counter() - began_s) < PATIENCE_S:
        now_s = server.cpu_s(LOOK_S)
        if now_s - before_s < IDLE_SHARE * LOOK_S:
            break
        before_s = now_s
    return spent_s


def main() -> int:
    """Measure and tell."""
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
