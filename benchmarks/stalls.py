"""Longest stalls of the relay's reactor: while 10,000 peers disconnect at once, and by 10,000 empty pings.

The peers are idle pairs of a binary and its phone. A process holds them and is killed, so that the kernel closes all of
them at the same moment. The pings arrive in one chunk from one phone, once with the default quota for pings and once
without a quota. From the inside, the relay's service runs with a timer that fires every millisecond, and the stall is
the most CPU time of the reactor's thread between two ticks. From the outside, an honest pair exchanges one message all
the time, and the result is its longest round trip above the median one before.
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

from _attempts import addresses, binary_head, open_upgraded, phone_head, reset
from _honest import MASK, child_process, run_honest_pair
from _rig import HOST, OURS, Row, Server, arguments, die_with_parent, free_port, publish, relay

QUIET_S = 1.0
PING = b"\x89\x80" + MASK
OPTIONS = ("--max-connections", "20000", "--prefix-quota", "off", "--frame-quota", "off")
QUIET, UNLIMITED = "quiet", "pyryrelay, --ping-quota off"


@dataclass
class Stall:
    """The longest stalls, in milliseconds, from the inside and from the outside, by contestant."""

    inside: dict[str, list[float]] = field(default_factory=dict)
    outside: dict[str, list[float]] = field(default_factory=dict)

    def note(self, contestant: str, inside_ms: float, outside_ms: float) -> None:
        """Add a measurement."""
        self.inside.setdefault(contestant, []).append(inside_ms)
        self.outside.setdefault(contestant, []).append(outside_ms)

    def rows(self, name: str, target: str, target_outside: str = "") -> list[Row]:
        """Return the rows of the longest stall and the longest round trip, with their targets."""
        return [
            Row(f"longest stall, {name}", "ms", self.inside, target),
            Row(f"longest round trip of others, {name}", "ms above the median", self.outside, target_outside),
        ]


def take_longest_ms(port: int) -> float:
    """Return the longest stall since the last call, in milliseconds; see `_probe`."""
    with socket.create_connection((HOST, port)) as sock, sock.makefile() as answer:
        return float(answer.readline().split()[0])


def hold(server: Server, count: int, pipe: Connection) -> None:
    """Open ``count`` connections, report that, and wait to be killed."""
    die_with_parent()
    heads = ((phone_head if number % 2 else binary_head)(f"held-{number // 2}") for number in range(count))
    held = open_upgraded(server, heads, addresses())
    pipe.send(len(held))
    signal.pause()


def measure(
    server: Server, port: int, attack: Callable[[], None], patience_s: float
) -> tuple[list[float], list[float]]:
    """Return the longest stalls without and with an attack, and the longest round trips above the median."""
    with child_process(run_honest_pair, server) as (honest, _):
        inside_ms, outside_ms, median_ms = [], [], 0.0
        time.sleep(QUIET_S / 2)  # until the pair is connected
        for begin, for_s in ((None, QUIET_S), (attack, patience_s)):
            honest.send(True)
            honest.recv()
            take_longest_ms(port)
            if begin is not None:
                begin()
            time.sleep(for_s)
            inside_ms.append(take_longest_ms(port))
            honest.send(True)
            times_ms: list[float] = honest.recv()
            median_ms = median_ms or statistics.median(times_ms)
            outside_ms.append(max(times_ms) - median_ms)
        honest.send(False)
    return inside_ms, outside_ms


def disconnects(count: int, stall: Stall) -> None:
    """Measure disconnects of all peers at once."""
    port = free_port()
    with _probed(port) as server, child_process(hold, server, count) as (held, pid):
        held.recv()
        inside_ms, outside_ms = measure(server, port, lambda: os.kill(pid, signal.SIGKILL), 3 * QUIET_S)
        stall.note(OURS, inside_ms[1], outside_ms[1])
        stall.note(QUIET, inside_ms[0], outside_ms[0])


def pings(count: int, stall: Stall, contestant: str, *options: str) -> None:
    """Measure pings in one chunk."""
    port = free_port()
    with _probed(port, *options) as server:
        pair = open_upgraded(server, [binary_head("hostile"), phone_head("hostile")])
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
    """Measure, and print the results."""
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
