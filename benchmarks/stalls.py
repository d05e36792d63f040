"""How long the relay's reactor is held up at most: while 10,000 peers disconnect at once, and by 10,000 empty pings.

The peers are pairs of a binary and its phone, all idle and held by a process that is killed, so that the kernel ends
them all in the same moment. The pings come in one chunk from one phone, once with the default quota for pings and once
without any. Measured from inside: the relay's service runs with a timer that fires every millisecond, and the stall is
the most CPU time that the reactor's thread spent between two ticks. Measured from outside: an honest pair sends one
message to and fro all the time, and what counts is its longest round trip, less the median one of before.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from _attempts import addresses, binary_head, opened, phone_head, reset
from _honest import MASK, child, sample
from _rig import HOST, OURS, Row, Server, arguments, die_with_parent, free_port, publish, relay

QUIET_S = 1.0
PING = b"\x89\x80" + MASK
OPTIONS = ("--max-connections", "20000", "--prefix-quota", "off", "--frame-quota", "off")
QUIET, UNLIMITED = "quiet", "pyryrelay, --ping-quota off"


@dataclass
class Stall:
    """The longest, in milliseconds, seen from inside and from outside, for each contestant."""

    inside: dict[str, list[float]] = field(default_factory=dict)
    outside: dict[str, list[float]] = field(default_factory=dict)

    def note(self, contestant: str, inside_ms: float, outside_ms: float) -> None:
        """One more measurement."""
        self.inside.setdefault(contestant, []).append(inside_ms)
        self.outside.setdefault(contestant, []).append(outside_ms)

    def rows(self, name: str, target: str, target_outside: str = "") -> list[Row]:
        """The longest stall, and the longest round trip, with their targets."""
        return [
            Row(f"longest stall, {name}", "ms", self.inside, target),
            Row(f"longest round trip of others, {name}", "ms above the median", self.outside, target_outside),
        ]


def ask(port: int) -> float:
    """The longest stall since this was last asked, in milliseconds; see `_probe`."""
    with socket.create_connection((HOST, port)) as sock, sock.makefile() as answer:
        return float(answer.readline().split()[0])


def hold(server: Server, count: int, told: Connection) -> None:
    """Open so many connections, say so, and wait to be killed."""
    die_with_parent()
    heads = ((phone_head if number % 2 else binary_head)(f"held-{number // 2}") for number in range(count))
    held = opened(server, heads, addresses())
    told.send(len(held))
    signal.pause()


def measure(
    server: Server, port: int, attack: Callable[[], None], patience_s: float
) -> tuple[list[float], list[float]]:
    """The longest stall in quiet and under attack; then the same of the honest pair's round trips above the median."""
    with child(sample, server) as (honest, _):
        inside_ms, outside_ms, median_ms = [], [], 0.0
        time.sleep(QUIET_S / 2)  # until the pair is there
        for begin, for_s in ((None, QUIET_S), (attack, patience_s)):
            honest.send(True)
            honest.recv()
            ask(port)
            if begin is not None:
                begin()
            time.sleep(for_s)
            inside_ms.append(ask(port))
            honest.send(True)
            times_ms: list[float] = honest.recv()
            median_ms = median_ms or statistics.median(times_ms)
            outside_ms.append(max(times_ms) - median_ms)
        honest.send(False)
    return inside_ms, outside_ms


def disconnects(count: int, stall: Stall) -> None:
    """All at once."""
    port = free_port()
    with _probed(port) as server, child(hold, server, count) as (held, pid):
        held.recv()
        inside_ms, outside_ms = measure(server, port, lambda: os.kill(pid, signal.SIGKILL), 3 * QUIET_S)
        stall.note(OURS, inside_ms[1], outside_ms[1])
        stall.note(QUIET, inside_ms[0], outside_ms[0])


def pings(count: int, stall: Stall, contestant: str, *options: str) -> None:
    """All in one chunk."""
    port = free_port()
    with _probed(port, *options) as server:
        pair = opened(server, [binary_head("hostile"), phone_head("hostile")])
        chunk = PING * count
        inside_ms, outside_ms = measure(server, port, lambda: pair[1].sendall(chunk), QUIET_S)
        stall.note(contestant, inside_ms[1], outside_ms[1])
        if contestant == OURS:
            stall.note(QUIET, inside_ms[0], outside_ms[0])
        reset(pair)


def _probed(port: int, *options: str) -> AbstractContextManager[Server]:
    starter = (sys.executable, str(Path(__file__).with_name("_probe.py")), str(port))
    return relay(*OPTIONS, *options, generous=False, starter=starter)


def main() -> int:
    """Measure and tell."""
    options = arguments(__doc__ or "")
    peers, rounds = (1000, 1) if options.quick else (10_000, 2)
    left, pinged = Stall(), Stall()
    for _ in range(options.rounds or rounds):
        disconnects(peers, left)
        pings(10_000, pinged, OURS)
        pings(10_000, pinged, UNLIMITED, "--ping-quota", "off")
    rows = left.rows(f"{peers:,} peers disconnect at once", "at most 50", "at most 50")
    publish([*rows, *pinged.rows("10,000 empty pings in one chunk", "at most 5")], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
