"""A flood from 50 addresses of one /24 (or one /48), and its effect on 20 honest clients.

For each setup (direct, behind nginx, behind haproxy; loopback aliases, two network namespaces over IPv4 and IPv6), a
real relay with its default settings is started twice, without and with a flood. Loopback is exempt from the jail, so
that flood is answered with 429 all the time; the one between namespaces is jailed while it is measured. The honest
clients make 20 upgrades each, 10 per second, from other prefixes. Their times from connect to 101 are compared: the
flood must not double the 99th percentile. Each percentile is the median over the rounds. The flood makes `--rate`
attempts per second; with 0 it makes as many as possible, which uses all of the server's core. A faster flood precedes
it, so that bursts are spent and attackers are jailed.

There are three rounds of five setups. `--quick` runs one round of two, `--thorough` three rounds of all eleven, twice
as long each. Namespaces need root and iproute2; missing programs are named and left out. Prints a Markdown table;
exits with 1 if a ratio is above 2. Times are seconds unless named otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import _network
from _rig import (
    HOST,
    Server,
    cores,
    free_port,
    machine,
    nginx_command,
    pin,
    pin_load,
    prepare,
    program,
    running,
    save,
)
from _rig import Row as Result
from _rig import directory as temporary_directory

ATTACKERS, HONEST = 50, 20
UPGRADES, EVERY_S, THOROUGH_EVERY_S = 20, 0.1, 0.2
START_S = 0.4
"""Time from the start of a load's process to its first attempt."""
WARM_UP_S = 2.0
"""Time of the flood before the honest clients start, so that bursts are spent and attackers are jailed."""
MAX_RATIO = 2.0
AT_ACCEPT = "direct, --no-kernel-drop"
HONEST_PRIORITY, FLOOD_PRIORITY = 10, 5
"""Priorities of the real-time scheduler: an honest client must not wait for the flood's own work."""

NGINX = """\
    server {{
        listen {listen};
        location / {{
            proxy_pass http://127.0.0.1:{relay_port};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
"""
HAPROXY = """\
global
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend public
    bind {listen}
    default_backend relay
backend relay
    server relay 127.0.0.1:{relay_port} send-proxy-v2
"""


@dataclass(frozen=True)
class Network:
    """A network: the server's address, and the addresses of attackers and honest clients."""

    name: str
    host: str
    attackers: Sequence[str]
    honest: Sequence[str]
    namespaced: bool


LOOPBACK = Network(
    "loopback IPv4",
    "127.0.0.1",
    [f"127.1.2.{number}" for number in range(1, ATTACKERS + 1)],
    [f"127.2.{number}.1" for number in range(HONEST)],
    namespaced=False,
)
NAMESPACES_V4 = Network(
    "namespaces IPv4",
    "192.0.2.1",
    [f"10.1.2.{number}" for number in range(1, ATTACKERS + 1)],
    [f"10.2.{number}.1" for number in range(HONEST)],
    namespaced=True,
)
NAMESPACES_V6 = Network(
    "namespaces IPv6",
    "2001:db8::1",
    [f"2001:db8:1001:{number:x}::1" for number in range(1, ATTACKERS + 1)],
    [f"2001:db8:{number:x}::1" for number in range(0x1010, 0x1010 + HONEST)],
    namespaced=True,
)


NORMAL = {
    LOOPBACK.name: ("direct", "haproxy"),
    NAMESPACES_V4.name: ("direct", "nginx"),
    NAMESPACES_V6.name: (AT_ACCEPT,),
}
QUICK = {LOOPBACK.name: ("direct",), NAMESPACES_V4.name: ("direct",), NAMESPACES_V6.name: ()}


# Servers


@contextlib.contextmanager
def relay_behind(front: str, network: Network, directory: Path) -> Iterator[Server]:
    """Start a relay and the proxy in front of it; yield the relay, with the port of the proxy."""
    admin_port, relay_port, port = free_port(), free_port(), free_port()
    direct = f"tcp:{port}:interface=" + network.host.replace(":", "\\:")
    options = {
        "direct": ("--listen", direct),
        AT_ACCEPT: ("--listen", direct, "--no-kernel-drop"),
        "nginx": ("--listen", f"tcp:{relay_port}:interface={HOST}", "--trust-x-forwarded-for"),
        "haproxy": ("--listen", f"tcp:{relay_port}:interface={HOST}", "--proxy-protocol"),
    }[front]
    trusted = () if front in ("direct", AT_ACCEPT) else ("--trusted-proxy", HOST)
    command = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "pyryrelay", *options, *trusted]
    command += ["--admin-listen", f"tcp:{admin_port}:interface={HOST}", "--jail-file", ""]
    host = f"[{network.host}]" if ":" in network.host else network.host
    listen = {"listen": f"{host}:{port}", "relay_port": relay_port}
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(running(command, directory, admin_port, admin_port))
        relay.port = port
        if front == "nginx":
            stack.enter_context(running(nginx_command(NGINX.format(**listen), directory), directory, port))
        elif front == "haproxy":
            (directory / "haproxy.cfg").write_text(HAPROXY.format(**listen), encoding="utf-8")
            haproxy = [str(program("haproxy")), "-db", "-f", "haproxy.cfg"]
            stack.enter_context(running(haproxy, directory, port))
        yield relay


def refusals(relay: Server) -> int:
    """Return how many requests the relay has refused so far."""
    return int(relay.metric(r"pyryrelay_refusals_total\{[^}]*\}"))


# Load


@dataclass
class Phase:
    """Measurements while the honest clients were active."""

    rounds: list[list[float]] = field(default_factory=list)
    """The durations of the honest upgrades, in seconds."""
    failed: int = 0
    refused: int = 0
    cpu_s: float = 0.0
    span_s: float = 0.0
    attempts: Counter[str] = field(default_factory=Counter)

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the upgrades in milliseconds: the median over the rounds."""
        found = [statistics.quantiles(times, n=100, method="inclusive")[percent - 1] for times in self.rounds]
        return statistics.median(found) * 1000


@dataclass(frozen=True)
class Load:
    """The rates of clients: ``rate`` attempts per second of the flood (0: all it can), honest ones each ``every_s``."""

    prefix: Sequence[str]
    rate: float
    every_s: float

    @property
    def for_s(self) -> float:
        """How long the honest clients are active."""
        return UPGRADES * self.every_s

    def start(self, priority: int, load: Mapping[str, object]) -> subprocess.Popen[str]:
        """Start a process that attempts upgrades; see `_load`."""
        command = [*self.prefix, sys.executable, str(Path(__file__).with_name("_load.py"))]
        prepare_process = functools.partial(pin, cores()[1], priority)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=prepare_process
        )
        assert process.stdin is not None
        json.dump(load, process.stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def start_all(self, network: Network, port: int, begin_s: float, *, flood: bool) -> list[subprocess.Popen[str]]:
        """Start the honest clients, which begin at ``begin_s``; with a ``flood``, as the last of three processes."""
        to = {"host": network.host, "port": port}
        loads = []
        if flood:
            attackers = {**to, "sources": list(network.attackers), "honest": False}
            interval_s = ATTACKERS / self.rate if self.rate else 0.0
            # The first one stops a little early, so that the backlog it leaves is not measured.
            first = {"begin_s": begin_s - WARM_UP_S, "for_s": WARM_UP_S - 0.5, "interval_s": 0.0}
            then = {"begin_s": begin_s - 0.5, "for_s": 0.5 + self.for_s + 0.5, "interval_s": interval_s}
            loads = [self.start(FLOOD_PRIORITY, attackers | first), self.start(FLOOD_PRIORITY, attackers | then)]
        honest = {"sources": list(network.honest), "begin_s": begin_s, "for_s": self.for_s, "interval_s": self.every_s}
        return [*loads, self.start(HONEST_PRIORITY, to | honest | {"honest": True})]


def measure(front: str, network: Network, load: Load, *, flood: bool) -> Phase:
    """Start a relay and the honest clients, with or without the flood, and measure."""
    phase = Phase()
    with temporary_directory() as directory, relay_behind(front, network, directory) as relay:
        begin_s = time.monotonic() + START_S + (WARM_UP_S if flood else 0.0)
        loads = load.start_all(network, relay.port, begin_s, flood=flood)
        try:
            time.sleep(max(0.0, begin_s - time.monotonic()))
            refused, spent_s, since_s = refusals(relay), relay.cpu_s(), time.monotonic()
            time.sleep(max(0.0, begin_s + load.for_s - time.monotonic()))
            phase.cpu_s = relay.cpu_s() - spent_s
            phase.refused, phase.span_s = refusals(relay) - refused, time.monotonic() - since_s
            outcomes = [json.loads(process.communicate(timeout=60)[0]) for process in loads]
        finally:
            for process in loads:
                process.kill()
    phase.rounds = [outcomes[-1]["latencies_s"]]
    phase.failed = sum(count for status, count in outcomes[-1]["statuses"].items() if status != "101")
    if flood:
        phase.attempts = Counter(outcomes[-2]["statuses"])
    return phase


@dataclass(frozen=True)
class Row:
    """The results of one setup."""

    front: str
    network: str
    quiet: Phase
    flood: Phase

    @property
    def ratio(self) -> float:
        """The 99th percentile of the honest upgrades with the flood, relative to that without."""
        return self.flood.percentile_ms(99) / self.quiet.percentile_ms(99)

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        quiet, flood = self.quiet, self.flood
        per_refusal = (flood.cpu_s - quiet.cpu_s) / flood.refused * 1e6 if flood.refused else 0.0
        # What the kernel lets through, about 16 refusals per second, costs less than the noise of honest clients.
        each = f"{per_refusal:.0f}" if flood.refused / flood.span_s >= 50 else "-"
        times = [f"{phase.percentile_ms(percent):.2f}" for phase in (quiet, flood) for percent in (50, 99)]
        refused = f"{flood.refused / flood.span_s:.0f}"
        failed = str(quiet.failed + flood.failed)
        return [self.front, self.network, *times, f"{self.ratio:.2f}", refused, each, failed]


TITLES = ("in front", "clients", "quiet p50", "p99", "flood p50", "p99", "ratio", "refused/s", "CPU µs each", "failed")


def _merge(phases: Sequence[Phase]) -> Phase:
    merged = Phase()
    for phase in phases:
        merged.rounds += phase.rounds
        merged.failed += phase.failed
        merged.refused += phase.refused
        merged.cpu_s += phase.cpu_s
        merged.span_s += phase.span_s
        merged.attempts += phase.attempts
    return merged


def bench(fronts: Sequence[str], network: Network, load: Load, rounds: int) -> Iterator[Row]:
    """Measure one network behind each proxy, without and with the flood in turn."""
    for front in fronts:
        phases = [[measure(front, network, load, flood=flood) for flood in (False, True)] for _ in range(rounds)]
        quiet, flood = (_merge(found) for found in zip(*phases, strict=True))
        row = Row(front, network.name, quiet, flood)
        print("| " + " | ".join(row.cells()) + " |", flush=True)
        yield row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="attempts a second of the flood (0: all it can)")
    parser.add_argument("--rounds", type=int, help="how often quiet and flood are measured in turn")
    parser.add_argument("--quick", action="store_true", help="one round of two setups")
    parser.add_argument("--thorough", action="store_true", help="all setups, twice as long each")
    parser.add_argument("--only", metavar="TEXT", default="", help="setups whose names contain this")
    parser.add_argument("--json", metavar="FILE", type=Path, help="append the results to this file, one object a row")
    return parser.parse_args()


def _fronts(options: argparse.Namespace, network: Network) -> list[str]:
    """Return the proxies to measure in one network: each one once, or with ``--thorough`` all of them."""
    fronts = ["direct", *([AT_ACCEPT] if network.namespaced else []), *filter(program, ("nginx", "haproxy"))]
    if options.quick:
        fronts = [front for front in fronts if front in QUICK[network.name]]
    elif not options.thorough:
        fronts = [front for front in fronts if front in NORMAL[network.name]]
    return [front for front in fronts if options.only in f"{front}, {network.name}"]


def _result(row: Row) -> Result:
    """Convert a row to the format of the other benchmarks."""
    percentiles = {
        name: [statistics.quantiles(times, n=100, method="inclusive")[98] * 1000 for times in phase.rounds]
        for name, phase in (("flood", row.flood), ("quiet", row.quiet))
    }
    name, target = (
        f"upgrade during a flood, 99th percentile: {row.front}, {row.network}",
        f"at most {MAX_RATIO:g} x quiet",
    )
    return Result(name, "ms", percentiles, target, baseline="quiet")


def main() -> int:
    """Run all measurements that are possible here, and judge them."""
    options = _arguments()
    prepare()
    pin_load()
    namespaces = _network.possible()
    missing = [name for name in ("nginx", "haproxy") if program(name) is None]
    missing += [] if namespaces else ["network namespaces (root and iproute2)"]
    print(machine())
    if missing:
        print(f"Left out: {', '.join(missing)}.")
    print("\n| " + " | ".join(TITLES) + " |\n" + "|---|---|" + "---:|" * (len(TITLES) - 2))
    rounds = options.rounds or (1 if options.quick else 3)
    rows: list[Row] = []
    for network in (LOOPBACK, NAMESPACES_V4, NAMESPACES_V6):
        fronts = _fronts(options, network)
        if not fronts or (network.namespaced and not namespaces):
            continue
        with _network.two_machines() if network.namespaced else contextlib.nullcontext("") as client:
            prefix = ("ip", "netns", "exec", client) if network.namespaced else ()
            load = Load(prefix, options.rate, THOROUGH_EVERY_S if options.thorough else EVERY_S)
            rows += bench(fronts, network, load, rounds)
    save([_result(row) for row in rows], options)
    above = [row for row in rows if row.ratio > MAX_RATIO]
    for row in above:
        print(f"above {MAX_RATIO:g}: {row.front}, {row.network}: {row.ratio:.2f}", file=sys.stderr)
    return 1 if above or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
