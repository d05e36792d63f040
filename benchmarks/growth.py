"""The costs of refusing, forwarding and upgrading while 100, 1,000 and 10,000 connections are open and idle.

There is one relay for each number. They run at the same time and are measured in turn. The idle connections are
binaries that come from many loopback addresses and answer pings. CPU time of the relay, in microseconds:

- a refusal: 429 to an address whose quota is spent, from connecting to the last byte;
- a forwarded frame: 1 KiB from a phone to its binary or back, with four pairs that have one frame in flight each;
- an upgrade of a binary, until its response has arrived.

A cost is flat if it is at most 1.3 times as high with 10,000 connections as with 100.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import resource
from collections.abc import Callable, Sequence

import _clients
import _traffic
from _rig import Row, Server, alternate, relay
from _round_trips import RoundTrips

LEVELS, QUICK_LEVELS = (10_000, 1_000, 100), (2_000, 100)
TARGET = "at most 1.3 x {}"
PAIRS, PAYLOAD_BYTES = 4, 1024
FOR_S, QUICK_FOR_S = 0.5, 0.2
COUNT, QUICK_COUNT = 400, 100
REFUSED = "127.250.0.1"
SPARE_FILES = 500


def within_limits(levels: Sequence[int]) -> Sequence[int]:
    """Return the numbers of connections, in descending order, that the limit of open files allows."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
    return [level for number, level in enumerate(levels) if sum(levels[number:]) <= room]


def refuse(server: Server, idle: _clients.IdleBinaries, count: int) -> float:
    """Return the microseconds per refusal."""
    idle.answer_pings()
    return _clients.refusal_cost_s(server, count, REFUSED) * 1e6


def forward(server: Server, idle: _clients.IdleBinaries, for_s: float) -> float:
    """Return the microseconds per frame."""
    idle.answer_pings()
    with RoundTrips(server, PAIRS, PAYLOAD_BYTES) as trips:
        load = trips.run(for_s)
    return load.server_s / load.frames * 1e6


def upgrade(server: Server, idle: _clients.IdleBinaries, count: int) -> float:
    """Return the microseconds per upgrade."""
    idle.answer_pings()
    return _clients.upgrade_cost_s(server, count) * 1e6


def bench(options: argparse.Namespace) -> list[Row]:
    """Open the idle connections, and measure all three costs."""
    rounds = options.rounds or (1 if options.quick else 5)
    for_s, count = (QUICK_FOR_S, QUICK_COUNT) if options.quick else (FOR_S, COUNT)
    wanted = QUICK_LEVELS if options.quick else LEVELS
    found = within_limits(wanted)
    note = "" if len(found) == len(wanted) else "the limit of open files is too low for more connections"
    with contextlib.ExitStack() as stack:
        relays = {}
        for level in found:
            server = stack.enter_context(relay("--upgrade-quota", "10/minute burst 20"))
            relays[f"{level:,} live"] = server, stack.enter_context(_clients.IdleBinaries(server, level))
            _clients.spend_quota(server, REFUSED)

        def compare(name: str, cost: Callable[[Server, _clients.IdleBinaries], float]) -> Row:
            calls = {level: functools.partial(cost, server, idle) for level, (server, idle) in relays.items()}
            least = [*calls][-1]
            return Row(name, "µs of CPU", alternate(rounds, calls), TARGET.format(least), "lower", least, note)

        return [
            compare("growth: a refusal", functools.partial(refuse, count=count)),
            compare("growth: a forwarded frame, 1 KiB", functools.partial(forward, for_s=for_s)),
            compare("growth: an upgrade", functools.partial(upgrade, count=count)),
        ]


if __name__ == "__main__":
    _traffic.run(__doc__ or "", bench)
