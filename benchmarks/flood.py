"""A flood from 50 addresses of one /24 (or one /48), and what 20 honest clients notice of it.

For each setup (direct, behind nginx, behind haproxy; loopback aliases, two network namespaces over IPv4 and IPv6) a
real relay is started with its default settings, once for quiet and once for flood. Loopback is exempt from the jail, so
that flood is answered 429 all the time; the one between namespaces is in jail when it is measured. The honest clients
make 20 upgrades each, 5 a second, from prefixes of their own, and their times from connect to 101 are compared: the
flood must not double the 99th percentile. Each percentile is the median of those of the rounds. The flood makes
`--rate` attempts a second; with 0 it makes as many as it can, which takes all of the server's core.

Server and load generator are pinned to different cores. Namespaces need root and iproute2; what is missing is named
and left out. Prints a table in Markdown; exit code 1 if a ratio is above 2. Times are seconds unless named otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
ATTACKERS, HONEST = 50, 20
UPGRADES, EVERY_S = 20, 0.2
WARM_UP_S = 3.0
"""How long a flood goes on before the honest clients come: bursts are spent by then."""
ATTEMPTS_TO_JAIL = 90
"""Of each attacker under the default settings, generously; loopback is exempt."""
MAX_RATIO = 2.0
KERNEL = "direct, --kernel-drop"
RELAY_PORT, PROXY_PORT, ADMIN_PORT = 18080, 18081, 18082
SERVER_PRIORITY, HONEST_PRIORITY, FLOOD_PRIORITY = 10, 10, 5
"""Of the real-time scheduler: an honest client must not wait for the flood's own work."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")

NGINX = """\
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
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
class Place:
    """Where clients come from: a server's address, and addresses for attackers and honest clients."""

    name: str
    host: str
    attackers: Sequence[str]
    honest: Sequence[str]
    namespaced: bool


LOOPBACK = Place(
    "loopback IPv4",
    "127.0.0.1",
    [f"127.1.2.{number}" for number in range(1, ATTACKERS + 1)],
    [f"127.2.{number}.1" for number in range(HONEST)],
    namespaced=False,
)
WIRE_V4 = Place(
    "namespaces IPv4",
    "192.0.2.1",
    [f"10.1.2.{number}" for number in range(1, ATTACKERS + 1)],
    [f"10.2.{number}.1" for number in range(HONEST)],
    namespaced=True,
)
WIRE_V6 = Place(
    "namespaces IPv6",
    "2001:db8::1",
    [f"2001:db8:1001:{number:x}::1" for number in range(1, ATTACKERS + 1)],
    [f"2001:db8:{number:x}::1" for number in range(0x1010, 0x1010 + HONEST)],
    namespaced=True,
)


# The two machines


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _setns(path: str) -> None:
    with open(path, "rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), f"cannot enter {path!r}")


@contextlib.contextmanager
def two_machines() -> Iterator[str]:
    """Be on the server of a network of two; gives the namespace of the client."""
    server, client = f"bench-{os.getpid()}-s", f"bench-{os.getpid()}-c"
    try:
        for namespace in (server, client):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("link", "add", "wire", "netns", server, "type", "veth", "peer", "wire", "netns", client)
        for namespace, host in ((server, 1), (client, 2)):
            _ip("-n", namespace, "addr", "add", f"192.0.2.{host}/24", "dev", "wire")
            _ip("-n", namespace, "addr", "add", f"2001:db8::{host}/64", "dev", "wire", "nodad")
            _ip("-n", namespace, "link", "set", "wire", "up")
        for version, clients, via in (("-4", "10.0.0.0/8", "192.0.2.2"), ("-6", "2001:db8:1000::/36", "2001:db8::2")):
            _ip("-n", client, version, "route", "add", "local", clients, "dev", "lo")
            _ip("-n", server, version, "route", "add", clients, "via", via)
        with open("/proc/self/ns/net", "rb") as before:
            _setns(f"/run/netns/{server}")
            try:
                time.sleep(3)  # the kernel needs a second or two to bring the wire up
                yield client
            finally:
                _setns(f"/proc/self/fd/{before.fileno()}")
    finally:
        for namespace in (server, client):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


# Servers


def cores() -> tuple[set[int], set[int]]:
    """Cores for the server and for the load; the same one if there is only one."""
    available = sorted(os.sched_getaffinity(0))
    middle = max(1, len(available) // 2)
    return set(available[:middle]), set(available[middle:] or available)


def _place(where: set[int], priority: int) -> None:
    """Pin this process, and have it go before whatever else the machine does, if that is permitted."""
    os.sched_setaffinity(0, where)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


@contextlib.contextmanager
def server(command: Sequence[str], directory: Path, port: int) -> Iterator[int]:
    """A process on the server's cores, from when it listens to the end of the block; its pid."""
    path = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: _place(cores()[0], SERVER_PRIORITY),
        )
    try:
        end_s = time.monotonic() + 20
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > end_s:
                raise SystemExit(f"{command[0]} did not start:\n{(directory / 'log').read_text(encoding='utf-8')}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    """Whether somebody listens, asked without connecting: a connection would be a client."""
    text = "".join(Path(f"/proc/thread-self/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6"))
    return re.search(rf":{port:04X} [0-9A-F]+:0000 0A ", text) is not None


@contextlib.contextmanager
def running(front: str, place: Place, directory: Path) -> Iterator[int]:
    """A relay, and what is in front of it; the relay's pid."""
    escaped = place.host.replace(":", "\\:")
    direct = f"tcp:{PROXY_PORT}:interface={escaped}"
    options = {
        "direct": ("--listen", direct),
        KERNEL: ("--listen", direct, "--kernel-drop"),
        "nginx": ("--listen", f"tcp:{RELAY_PORT}:interface=127.0.0.1", "--trust-x-forwarded-for"),
        "haproxy": ("--listen", f"tcp:{RELAY_PORT}:interface=127.0.0.1", "--proxy-protocol"),
    }[front]
    trusted = () if front in ("direct", KERNEL) else ("--trusted-proxy", "127.0.0.1")
    twistd = str(Path(sys.executable).parent / "twistd")
    command = [twistd, "-n", "--pidfile=", "pyryrelay", *options, *trusted]
    command += ["--admin-listen", f"tcp:{ADMIN_PORT}:interface=127.0.0.1", "--jail-file", ""]
    host = f"[{place.host}]" if ":" in place.host else place.host
    listen = {"listen": f"{host}:{PROXY_PORT}", "relay_port": RELAY_PORT}
    with contextlib.ExitStack() as stack:
        pid = stack.enter_context(server(command, directory, ADMIN_PORT))
        if front == "nginx":
            user = "user root;" if os.getuid() == 0 else ""
            (directory / "nginx.conf").write_text(NGINX.format(user=user, **listen), encoding="utf-8")
            nginx = [str(_program("nginx")), "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
            stack.enter_context(server(nginx, directory, PROXY_PORT))
        elif front == "haproxy":
            (directory / "haproxy.cfg").write_text(HAPROXY.format(**listen), encoding="utf-8")
            haproxy = [str(_program("haproxy")), "-db", "-f", "haproxy.cfg"]
            stack.enter_context(server(haproxy, directory, PROXY_PORT))
        yield pid


def _program(name: str) -> str | None:
    return shutil.which(name, path=SYSTEM_PATH)


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, in user and system mode (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def refusals() -> int:
    """How many the relay has refused so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_PORT}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return int(sum(float(value) for value in re.findall(r"^pyryrelay_refusals_total\{[^}]*\} (\S+)$", text, re.M)))


# Load


@dataclass
class Phase:
    """What was measured while the honest clients were there."""

    rounds: list[list[float]] = field(default_factory=list)
    """The times of the honest upgrades, in seconds."""
    failed: int = 0
    refused: int = 0
    cpu_s: float = 0.0
    span_s: float = 0.0
    attempts: Counter[str] = field(default_factory=Counter)

    def percentile_ms(self, percent: int) -> float:
        """A percentile of the upgrades' times in milliseconds: the median of those of the rounds."""
        found = [statistics.quantiles(times, n=100, method="inclusive")[percent - 1] for times in self.rounds]
        return statistics.median(found) * 1000


def _start_load(prefix: Sequence[str], priority: int, **load: object) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, str(Path(__file__).with_name("_load.py"))]

    place = functools.partial(_place, cores()[1], priority)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=place)
    assert process.stdin is not None
    json.dump(load, process.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def measure(front: str, place: Place, prefix: Sequence[str], rate: float | None) -> Phase:
    """Start a relay, have the honest clients come, and with a ``rate`` (0: as fast as it goes) the flood."""
    phase = Phase()
    where = {"host": place.host, "port": PROXY_PORT}
    # The disk's own pauses are not what is measured.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as directory, running(front, place, Path(directory)) as pid:
        now = time.monotonic() + 0.5
        warm_up_s = 0.0 if rate is None else WARM_UP_S
        if place.namespaced and rate:
            warm_up_s = max(WARM_UP_S, 1.0 + ATTEMPTS_TO_JAIL * ATTACKERS / rate)
        begin_s, for_s = now + warm_up_s, UPGRADES * EVERY_S
        loads = []
        if rate is not None:
            flood = {"sources": list(place.attackers), "begin_s": now, "for_s": warm_up_s + for_s + 0.5}
            interval_s = ATTACKERS / rate if rate else 0.0
            loads.append(_start_load(prefix, FLOOD_PRIORITY, **where, **flood, interval_s=interval_s, honest=False))
        honest = {"sources": list(place.honest), "begin_s": begin_s, "for_s": for_s}
        loads.append(_start_load(prefix, HONEST_PRIORITY, **where, **honest, interval_s=EVERY_S, honest=True))
        try:
            time.sleep(max(0.0, begin_s - time.monotonic()))
            refused, spent_s, since_s = refusals(), cpu_s(pid), time.monotonic()
            time.sleep(max(0.0, begin_s + for_s - time.monotonic()))
            phase.cpu_s = cpu_s(pid) - spent_s
            phase.refused, phase.span_s = refusals() - refused, time.monotonic() - since_s
            outcomes = [json.loads(load.communicate(timeout=60)[0]) for load in loads]
        finally:
            for load in loads:
                load.kill()
    phase.rounds = [outcomes[-1]["latencies_s"]]
    phase.failed = sum(count for status, count in outcomes[-1]["statuses"].items() if status != "101")
    if rate is not None:
        phase.attempts = Counter(outcomes[0]["statuses"])
    return phase


@dataclass(frozen=True)
class Row:
    """One setup's figures."""

    front: str
    place: str
    quiet: Phase
    flood: Phase

    @property
    def ratio(self) -> float:
        """How many times longer the slowest hundredth of the honest upgrades takes."""
        return self.flood.percentile_ms(99) / self.quiet.percentile_ms(99)

    def cells(self) -> list[str]:
        """The row of the table."""
        quiet, flood = self.quiet, self.flood
        per_refusal = (flood.cpu_s - quiet.cpu_s) / flood.refused * 1e6 if flood.refused else 0.0
        each = f"{per_refusal:.0f}" if flood.refused / flood.span_s >= 10 else "-"
        times = [f"{phase.percentile_ms(percent):.2f}" for phase in (quiet, flood) for percent in (50, 99)]
        refused = f"{flood.refused / flood.span_s:.0f}"
        failed = str(quiet.failed + flood.failed)
        return [self.front, self.place, *times, f"{self.ratio:.2f}", refused, each, failed]


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


def bench(fronts: Sequence[str], place: Place, prefix: Sequence[str], rounds: int, rate: float) -> Iterator[Row]:
    """Measure one place behind each front, quiet and flood in turn."""
    for front in fronts:
        phases = [(measure(front, place, prefix, None), measure(front, place, prefix, rate)) for _ in range(rounds)]
        quiet, flood = (_merge(found) for found in zip(*phases, strict=True))
        row = Row(front, place.name, quiet, flood)
        print("| " + " | ".join(row.cells()) + " |", flush=True)
        yield row


def machine() -> str:
    """What was measured on, and with; without names."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    versions = [f"{name} {_version(name)}" for name in ("twisted", "autobahn")]
    for program, flag in (("nginx", "-v"), ("haproxy", "-v")):
        if path := _program(program):
            said = subprocess.run([path, flag], capture_output=True, text=True, check=False)
            found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
            versions.append(f"{program} {found[0] if found else '?'}")
    cpu = f"{len(os.sched_getaffinity(0))} cores, {model[1] if model else platform.machine()}"
    return f"{cpu}; Linux {platform.release()}; Python {platform.python_version()}, {', '.join(versions)}"


def _version(name: str) -> str:
    return importlib.metadata.version(name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="attempts a second of the flood (0: all it can)")
    parser.add_argument("--rounds", type=int, default=3, help="how often quiet and flood are measured in turn")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--only", metavar="TEXT", default="", help="setups whose names contain this")
    return parser.parse_args()


def main() -> int:
    """Measure everything that can be measured here, and judge it."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave no servers and no namespaces behind
    rounds = 1 if asked.quick else asked.rounds
    fronts = ["direct", *filter(_program, ("nginx", "haproxy"))]
    missing = [name for name in ("nginx", "haproxy") if name not in fronts]
    namespaces = os.getuid() == 0 and _program("ip") is not None
    print(machine())
    if missing or not namespaces:
        missing += [] if namespaces else ["network namespaces (root and iproute2)"]
        print(f"Left out: {', '.join(missing)}.")
    print("\n| " + " | ".join(TITLES) + " |\n" + "|---|---|" + "---:|" * (len(TITLES) - 2))
    rows: list[Row] = []
    for place in (LOOPBACK, WIRE_V4, WIRE_V6):
        candidates = [fronts[0], *([KERNEL] if place.namespaced else []), *fronts[1:]]
        chosen = [front for front in candidates if asked.only in f"{front}, {place.name}"]
        if not chosen or (place.namespaced and not namespaces):
            continue
        with two_machines() if place.namespaced else contextlib.nullcontext("") as client:
            prefix = ("ip", "netns", "exec", client) if place.namespaced else ()
            rows += bench(chosen, place, prefix, rounds, asked.rate)
    above = [row for row in rows if row.ratio > MAX_RATIO]
    for row in above:
        print(f"above {MAX_RATIO:g}: {row.front}, {row.place}: {row.ratio:.2f}", file=sys.stderr)
    return 1 if above or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
