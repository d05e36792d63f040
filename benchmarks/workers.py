"""What two workers cost beside one process, and how fast a killed worker is replaced.

CPU time is that of all processes of the relay.

* A refused attempt is one of an address whose quota is spent: it is accepted and refused by the worker that the kernel
  has chosen, so it should cost what it costs without workers. An accepted upgrade is one of a phone from any address:
  half of them are passed to the worker that has the binary. The load is that of `refusals` and `upgrades`. The
  supervisor writes the log of the workers, which is shown apart.
* Frames of 1 KiB from eight phones to a binary, and round trips of 100 pairs, whose binaries belong to either worker.
* What two workers on two cores could do beside one process on one: twice the ratio of the CPU times. This is computed,
  because on a machine of two cores the load generator would need a third one. It leaves out what the cores themselves
  share, such as caches and memory.
* The same by the clock: frames to two binaries and round trips, while the kernel's CPU controller gives each process
  that serves connections the same share of a core (see `_cpu_shares`), and the load generator has a core of its own.
  Two workers have twice the share of one process. Left out where the controller cannot be used.
* `kill -9` of the worker that has a binary, until the same binary is served again. It attempts to connect every 5 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import _traffic
from _accepting import Accepting, phone_heads
from _attempts import binary_head, open_upgraded, reset
from _clients import Pairing, await_upgrade, connect, pair, server_ids, settle, source, upgrade
from _cpu_shares import ControllerError, find_controller, limited, schedule_normally
from _frames import TrafficError
from _rig import OURS, Row, Server, alternate, arguments, publish, relay
from _round_trips import RoundTrips
from refusals import NO_JAIL, SPENT
from refusals import Contestant as Refusing

WORKERS: Final = ("--workers", "2")
ALONE: Final = "one process"
SOURCES: Final = tuple(f"127.1.{number}.1" for number in range(8))
"""Addresses of several networks, which reach both workers."""
PAIRS: Final = 100
SHARE: Final = 0.3
"""Share of a core that each process has that is measured by the clock. Two of them leave a part of the core."""
BINARIES: Final = 2
"""Binaries that are streamed to by the clock; as many for each worker."""
PAIRS_IN_ALL: Final = 2 * PAIRS
"""Pairs that make round trips by the clock, so that each of two workers has about `PAIRS`."""
ATTEMPTS: Final = 200
"""How many binaries are connected to find some of each worker."""
PAUSE_S: Final = 4.0
"""Time before a worker is killed, in which the relay is idle."""
GIVE_UP_S: Final = 30.0


def refusals(stack: contextlib.ExitStack, count: int) -> dict[str, Refusing]:
    """Return what is measured for refusals."""
    found = {}
    for name, options in ((OURS, WORKERS), (ALONE, ())):
        server = stack.enter_context(relay(*SPENT, *NO_JAIL, *options, generous=False))
        found[name] = Refusing(server, count, frozenset({429}), sources=SOURCES)
    return found


class Supervisor(Server):
    """The process that starts the workers and writes their log, without them."""

    @property
    def pids(self) -> list[int]:
        """Its own process number."""
        return [self._pid]


def upgrades(rounds: int, count: int) -> list[Row]:
    """Measure upgrades of phones."""
    supervised: list[float] = []
    with contextlib.ExitStack() as stack:
        found: dict[str, Accepting] = {}
        servers = {name: stack.enter_context(relay(*options)) for name, options in ((OURS, WORKERS), (ALONE, ()))}
        for name, server in servers.items():
            binaries = open_upgraded(server, [binary_head("theirs")])
            stack.callback(reset, binaries)
            found[name] = Accepting(server, functools.partial(phone_heads, binaries), count)
        ours = servers[OURS]
        supervisor = Supervisor(ours.pids[0], ours.port, ours.directory)

        def watched() -> float:
            before_s = supervisor.cpu_s()
            measured = found[OURS].measure()
            supervised.append((supervisor.cpu_s() - before_s) / count * 1e6)
            return measured

        accepting = alternate(rounds, {OURS: watched, ALONE: found[ALONE].measure})
    whole = {name: one.whole_us for name, one in found.items()}
    name = "upgrade of a phone, two workers"
    return [
        Row(f"{name}, until it may send", "µs", accepting, f"at most 1.25 x {ALONE}", baseline=ALONE),
        Row(f"{name}, with its end", "µs", whole, baseline=ALONE),
        Row(f"{name}, with its end, in the supervisor", "µs", {OURS: supervised}),
    ]


def traffic(rounds: int, for_s: float) -> list[Row]:
    """Measure frames and round trips, and what follows for two cores."""

    def streamed(server: Server) -> float:
        load = _traffic.stream(server, 1024, for_s, up=True)
        return load.server_s / load.frames * 1e6

    def exchanged(server: Server) -> float:
        with RoundTrips(server, PAIRS, 200) as trips:
            load = trips.run(for_s)
        return load.server_s / load.frames * 2e6

    measures: Sequence[tuple[str, Callable[[Server], float]]] = (
        ("frame of 1 KiB to a binary", streamed),
        (f"round trip, {PAIRS} pairs", exchanged),
    )
    rows = []
    with relay(*WORKERS) as ours, relay() as alone:
        for name, measure in measures:
            calls = {who: functools.partial(measure, server) for who, server in ((OURS, ours), (ALONE, alone))}
            found = alternate(rounds, calls)
            rows.append(Row(f"{name}, two workers", "µs", found, baseline=ALONE))
            rows.append(
                Row(f"{name}, two cores beside one", "times", {OURS: capacity(found)}, "at least 1.6", "higher")
            )
    return rows


def capacity(found: Mapping[str, Sequence[float]]) -> list[float]:
    """Return how much more two workers with a core each can do than one process, by round."""
    return [2 * alone / ours for ours, alone in zip(found[OURS], found[ALONE], strict=True)]


def serving(server: Server, count: int) -> list[int]:
    """Return the processes of a server that serve connections, of which there are so many."""
    found: set[int] = set()
    for _ in range(ATTEMPTS):
        socks = upgrade(server, "/v1/server", [next(server_ids)])
        found.add(process_of(server, socks[0]))
        reset(socks)
        if len(found) == count:
            return sorted(found)
    raise SystemExit(f"{len(found)} processes serve connections, and not {count}")


def pairings(server: Server, pids: Sequence[int]) -> list[Pairing]:
    """Open binaries with their phones, the same number for each of the processes."""
    missing = dict.fromkeys(pids, BINARIES // len(pids))
    found: list[Pairing] = []
    for _ in range(ATTEMPTS):
        one = pair(server, _traffic.PHONES)
        pid = process_of(server, one.binary)
        if missing[pid]:
            missing[pid] -= 1
            found.append(one)
        else:
            reset(one.socks)
        if not any(missing.values()):
            return found
    raise SystemExit("a process serves no binary")


class Limited:
    """A relay whose processes that serve connections, ``pids``, have a share of a core each; counts by the clock."""

    def __init__(self, server: Server, pids: Sequence[int]) -> None:
        self._server = server
        self.pids = pids
        self.loads: dict[str, list[_traffic.Load]] = {"frames": [], "trips": []}

    def frames(self, for_s: float) -> float:
        """Return the frames of 1 KiB that arrive at binaries in a second."""
        opened = pairings(self._server, self.pids)
        try:
            load = _traffic.stream_to_each(self._server, opened, 1024, for_s)
        finally:
            reset([sock for one in opened for sock in one.socks])
        settle(self._server)
        self.loads["frames"].append(load)
        return load.frames / load.wall_s

    def trips(self, for_s: float) -> float:
        """Return the round trips in a second."""
        with RoundTrips(self._server, PAIRS_IN_ALL, 200) as trips:
            load = trips.run(for_s)
        self.loads["trips"].append(load)
        return len(load.latencies_s) / load.wall_s

    def shares(self, kind: str) -> tuple[float, float]:
        """Return the shares of a core that the relay and the load generator used."""
        loads = self.loads[kind]
        wall_s = sum(load.wall_s for load in loads)
        return sum(load.server_s for load in loads) / wall_s, sum(load.load_s for load in loads) / wall_s


def by_the_clock(rounds: int, for_s: float) -> list[Row]:
    """Measure what two workers do beside one process, if each process has the same share of a core."""
    try:
        controller = find_controller()
        with relay(*WORKERS) as ours, relay() as alone:
            found = {OURS: Limited(ours, serving(ours, 2)), ALONE: Limited(alone, serving(alone, 1))}
            schedule_normally([*ours.pids, *alone.pids])
            with limited({pid: SHARE for one in found.values() for pid in one.pids}, controller):
                return [clocked(found, kind, rounds, for_s) for kind in ("frames", "trips")]
    except ControllerError as error:
        print(f"Not measured by the clock: {error}.\n")
        return []


def clocked(found: Mapping[str, Limited], kind: str, rounds: int, for_s: float) -> Row:
    """Measure one row of those."""
    name, unit = {
        "frames": (f"frames of 1 KiB to {BINARIES} binaries", "frames/s"),
        "trips": (f"round trips, {PAIRS_IN_ALL} pairs", "a second"),
    }[kind]
    rates = alternate(rounds, {who: functools.partial(getattr(one, kind), for_s) for who, one in found.items()})
    (ours, busy), (alone, less_busy) = (one.shares(kind) for one in found.values())
    note = (
        f"{SHARE:.0%} of a core for each process; two workers used {ours:.0%} and the load generator {busy:.0%} of its"
        f" core, one process {alone:.0%} and the load generator {less_busy:.0%}"
    )
    return Row(f"{name}, by the clock, two workers", unit, rates, f"at least 1.6 x {ALONE}", "higher", ALONE, note)


def process_of(server: Server, sock: socket.socket) -> int:
    """Return the process of a server that has the other end of a connection."""
    (_, here), lines = sock.getsockname(), Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    ports = f":{server.port:04X}", f":{here:04X}"
    inodes = [line.split()[9] for line in lines[1:] if tuple(word[-5:] for word in line.split()[1:3]) == ports]
    for pid in server.pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link) in {f"socket:[{inode}]" for inode in inodes}:
                    return pid
    raise SystemExit("no process has the connection")


def recovery(server: Server, pause_s: float) -> float:
    """Kill the worker of a binary, and return the seconds until the binary is served again."""
    time.sleep(pause_s)
    head = binary_head("victim")
    sock = connect(server, head, source())
    await_upgrade(sock)
    os.kill(process_of(server, sock), signal.SIGKILL)
    began_s = time.monotonic()
    reset([sock])
    while time.monotonic() - began_s < GIVE_UP_S:
        with contextlib.suppress(TrafficError, OSError):
            again = connect(server, head, source())
            await_upgrade(again)
            took_s = time.monotonic() - began_s
            reset([again])
            return took_s
        time.sleep(0.005)
    raise SystemExit("a killed worker was not replaced")


def kills(rounds: int, pause_s: float) -> Row:
    """Measure how fast a killed worker is replaced."""
    with relay(*WORKERS) as server:
        found = [recovery(server, pause_s) for _ in range(rounds)]
    return Row("kill -9 of a worker, to its next answer", "s", {OURS: found}, "at most 1")


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure everything."""
    (refused, accepted), rounds = ((500, 300), 3) if options.quick else ((4000, 1000), 5)
    rounds = options.rounds or rounds
    with contextlib.ExitStack() as stack:
        refusing = alternate(rounds, {name: one.measure for name, one in refusals(stack, refused).items()})
    return [
        Row("refused upgrade, two workers", "µs", refusing, f"at most 1.1 x {ALONE}", baseline=ALONE),
        *upgrades(rounds, accepted),
        *traffic(rounds, 0.1 if options.quick else 0.5),
        *by_the_clock(rounds, 0.3 if options.quick else 1.0),
        kills(1 if options.quick else rounds, PAUSE_S),
    ]


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    publish(bench(options), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
