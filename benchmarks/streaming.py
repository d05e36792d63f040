"""Frames forwarded while eight phones stream to one binary, and one binary to eight phones, as fast as the server can.

Payloads are JSON texts of 64 B, 1 KiB, 16 KiB and 256 KiB minus the size of the envelope (262,000 B: the message limit
has its default). Frames are built and masked beforehand, and sent in large pieces. The number in flight keeps the
server busy: 128 KiB per phone, or two frames. Received frames are counted by their size. At the end of each
measurement, frames are parsed and compared with the sent ones, in order, and none may be missing.

There are two figures for each size and direction: frames per second of the server's CPU time, which is judged, and
frames per second of wall time. They differ if the load generator, which has its own core, is the bottleneck; then the
row says so. Quotas of frames and bytes are off, except in the last row, which shows the cost of charging them. A second
relay without quotas is the control there: a difference between those two is noise.

Rivals: plain Autobahn, and a bare Twisted forwarder, which forwards bytes without unmasking, checking or wrapping them,
and shows the cost of reading and writing alone. A relay given by ``--peer`` must have its limits disabled.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
from collections import defaultdict
from collections.abc import Callable

import _traffic
from _rig import AUTOBAHN, OURS, Row, Server, alternate, peer, relay, rival
from _traffic import Load

SIZES = {"64 B": 64, "1 KiB": 1024, "16 KiB": 16384, "256 KiB": 262_000}
QUICK_SIZES = ("64 B", "16 KiB")
TARGETS = {"64 B": "1e6", "1 KiB": "400e3", "16 KiB": "45e3", "256 KiB": "3e3"}
DIRECTIONS = {"8 phones to one binary": True, "one binary to 8 phones": False}
BARE = "bare Twisted"
FOR_S, QUICK_FOR_S = 0.6, 0.1
BUSY = 0.9
QUOTAS_ON = ("--frame-quota", "1000000/second", "--byte-quota", "16 GiB/second")
"""More than a phone ever sends: the quota is charged, and never exceeded."""
METERED, UNMETERED, CONTROL = "quotas on", "quotas off", "quotas off, a second relay"
METERED_ROUNDS = 7
"""More rounds than elsewhere: the difference is small, and the control shows the size of the noise."""


class Measurements:
    """The results of each contestant's measurements, besides the one figure that is compared."""

    def __init__(self) -> None:
        self._loads: defaultdict[str, list[Load]] = defaultdict(list)

    def measuring(self, name: str, measure: Callable[[], Load]) -> Callable[[], float]:
        """Wrap a measurement so that it returns frames per second of CPU time."""

        def call() -> float:
            load = measure()
            self._loads[name].append(load)
            return load.frames / load.server_s

        return call

    def wall(self) -> dict[str, list[float]]:
        """Return frames per second."""
        return {name: [load.frames / load.wall_s for load in loads] for name, loads in self._loads.items()}

    def note(self) -> str:
        """Name the contestants that the load generator has slowed down."""
        slowed = [who for who, loads in self._loads.items() if statistics.median(map(_is_load_bound, loads))]
        return f"the load generator was slower than {', '.join(slowed)}" if slowed else ""


def _is_load_bound(load: Load) -> bool:
    """Return whether the load generator was the bottleneck, not the server."""
    return load.server_s < min(BUSY * load.wall_s, load.load_s)


def compare(name: str, rounds: int, target: str, contestants: dict[str, Callable[[], Load]]) -> list[Row]:
    """Return two rows: by CPU time, and by wall time."""
    measurements = Measurements()
    found = alternate(rounds, {who: measurements.measuring(who, measure) for who, measure in contestants.items()})
    baseline = [*contestants][1]
    return [
        Row(name, "frames/s of CPU", found, target, "higher", baseline, measurements.note()),
        Row(name, "frames/s", {who: measurements.wall()[who] for who in found}, "", "higher", baseline),
    ]


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure all sizes in both directions."""
    rounds = options.rounds or (1 if options.quick else 5)
    for_s, sizes = (QUICK_FOR_S, QUICK_SIZES) if options.quick else (FOR_S, tuple(SIZES))
    rows = []
    with contextlib.ExitStack() as stack:
        servers = {OURS: stack.enter_context(relay()), AUTOBAHN: stack.enter_context(rival("autobahn_forward"))}
        servers[BARE] = stack.enter_context(rival("twisted_forward"))
        if options.peer:
            servers[options.peer] = stack.enter_context(peer(options.peer))
        for direction, up in DIRECTIONS.items():
            for size in sizes:
                measures = {who: _measure(server, SIZES[size], for_s, up, who) for who, server in servers.items()}
                rows += compare(f"{direction}, {size}", rounds, f"at least {TARGETS[size]}", measures)
        metered = {METERED: stack.enter_context(relay(*QUOTAS_ON))}
        metered |= {who: stack.enter_context(relay()) for who in (UNMETERED, CONTROL)}
        measures = {who: _measure(server, SIZES["1 KiB"], for_s, True, who) for who, server in metered.items()}
        rounds = options.rounds or (1 if options.quick else METERED_ROUNDS)
        rows += compare("8 phones to one binary, 1 KiB, charging quotas", rounds, "", measures)
    return rows


def _measure(server: Server, size_bytes: int, for_s: float, up: bool, who: str) -> Callable[[], Load]:
    return functools.partial(_traffic.stream, server, size_bytes, for_s, up=up, bare=who == BARE)


if __name__ == "__main__":
    _traffic.run(__doc__ or "", bench)
