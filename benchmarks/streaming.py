"""Frames forwarded: eight phones stream to one binary, and one binary to eight phones, as fast as the server goes.

Payloads are JSON texts of 64 B, 1 KiB, 16 KiB and 256 KiB less what the envelope needs (262,000 B: the message limit
stays at its default). Frames are built and masked beforehand and sent in large pieces; as many are on their way as keep
the server busy: 128 KiB for each phone, or two frames. Whatever arrives is counted by its size; at the end of each
measurement frames are taken apart and compared with what was sent, in order, and none may be missing.

Two figures for each size and direction: frames a second of the server's CPU time, which is what is judged, and frames
a second of wall time. They differ where the load generator, on a core of its own, is the slower of the two; then the
row says so. Frame and byte quotas are off, except in the last row, which shows what it costs to charge them; a second
relay without quotas is its control: whatever differs between those two is noise.

Rivals: plain Autobahn, and a bare Twisted forwarder, which hands on bytes without looking at them: it unmasks, checks
and wraps nothing, and shows what reading and writing alone cost. A relay of ``--peer`` must have its limits out of the
way.
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
"""More than a phone ever sends: charged, and never exceeded."""
METERED, UNMETERED, CONTROL = "quotas on", "quotas off", "quotas off, a second relay"
METERED_ROUNDS = 7
"""More than elsewhere: the difference is small, and the control shows how large one is that means nothing."""


class Log:
    """What each contestant's measurements came to, beside the one figure that is compared."""

    def __init__(self) -> None:
        self._loads: defaultdict[str, list[Load]] = defaultdict(list)

    def measuring(self, name: str, measure: Callable[[], Load]) -> Callable[[], float]:
        """The same, giving frames a second of CPU time."""

        def call() -> float:
            load = measure()
            self._loads[name].append(load)
            return load.frames / load.server_s

        return call

    def wall(self) -> dict[str, list[float]]:
        """Frames a second."""
        return {name: [load.frames / load.wall_s for load in loads] for name, loads in self._loads.items()}

    def note(self) -> str:
        """Whom the load generator held up."""
        held_up = [who for who, loads in self._loads.items() if statistics.median(map(_held_up, loads))]
        return f"the load generator was slower than {', '.join(held_up)}" if held_up else ""


def _held_up(load: Load) -> bool:
    """Whether the server had time to spare, and the load generator less of it."""
    return load.server_s < min(BUSY * load.wall_s, load.load_s)


def compare(name: str, rounds: int, target: str, contestants: dict[str, Callable[[], Load]]) -> list[Row]:
    """Two rows: by CPU time, and by the clock."""
    log = Log()
    found = alternate(rounds, {who: log.measuring(who, measure) for who, measure in contestants.items()})
    baseline = [*contestants][1]
    return [
        Row(name, "frames/s of CPU", found, target, "higher", baseline, log.note()),
        Row(name, "frames/s", {who: log.wall()[who] for who in found}, "", "higher", baseline),
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
