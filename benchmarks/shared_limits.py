"""What shared limits cost, and how exact they are: with a real Redis server on a UNIX socket, if there is one.

* The CPU time of an admission and of a refusal by the gate alone, without a cluster and in one, where what is charged
  in Redis counts too: 5,000 addresses are admitted each second, `BATCH` in one turn of the reactor.
* How many addresses a second one process can charge when nothing else is to do; and the CPU time of 10,000 a second,
  in the process and at Redis.
* What four processes admit, that attempt the same address 50 times a second each, beyond what one process would.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from _cluster import redis_server, run_bench
from _rig import OURS, Row, Server, pin_server
from pyryrelay.guard import Gate, GateConfig, Lease, Quota
from pyryrelay.runtime.process import tune_gc

ADMISSIONS = 10_000
ROUNDS, QUICK_ROUNDS = 5, 1
BATCH: Final = 20
"""Admissions in one turn of a busy reactor."""
PAUSE_S: Final = 0.004
"""Time from one turn to the next: 5,000 admissions a second."""
STEADY_RATE: Final = 10_000
STEADY_KEYS: Final = 20_000
STEADY_BATCH: Final = 40
PROCESSES: Final = 4
EACH_S: Final = 8.0
ATTEMPTS_EACH_S: Final = 50
QUOTA: Final = Quota.parse("10/minute burst 20")
SECRET: Final = b"0123456789abcdefghij"


def member(url: str, config: GateConfig) -> tuple[Gate, Any]:
    """Return a gate in a cluster, and what shares its limits."""
    from twisted.internet import reactor

    from pyryrelay.cluster.membership import Membership
    from pyryrelay.mounts import Settings

    settings = Settings(cluster=(url,), cluster_secret_file="-")
    membership = Membership(settings, SECRET, Path("/"), reactor, time.monotonic, time.time, _complain)
    gate = Gate(config, membership.wake)
    membership.join(gate)
    membership.start()
    return gate, membership


def _complain(warning: str) -> None:
    raise SystemExit(warning)


def address(number: int) -> str:
    """Return one of many addresses."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def on_reactor(work: Callable[[], Any]) -> None:
    """Run a generator of Deferreds on the reactor, then stop it."""
    from twisted.internet import reactor
    from twisted.internet.defer import inlineCallbacks

    def run() -> None:
        done = inlineCallbacks(work)()
        done.addErrback(lambda failure: failure.printTraceback())
        done.addBoth(lambda ignored: reactor.stop())

    reactor.callWhenRunning(run)
    reactor.run()


def drained(membership: Any) -> Iterator[Any]:
    """Wait until everything is charged."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    while membership.quotas.pending or membership.quotas._in_flight:
        yield deferLater(reactor, 0.001)


def charge_all(membership: Any, table: Any, numbers: range, found: dict[str, float]) -> Iterator[Any]:
    """Measure how fast addresses can be charged when nothing else is to do."""
    now, before = time.monotonic(), membership.quotas.charged
    for number in numbers:
        table.spend((1 << 32 | number) << 1, now)
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    yield from drained(membership)
    charged = membership.quotas.charged - before
    found["keys a second"] = charged / (time.monotonic() - began_s)
    found["us a key"] = (time.process_time() - began_cpu_s) / charged * 1e6


def charge_steadily(
    membership: Any, table: Any, numbers: range, redis_pid: int, found: dict[str, float]
) -> Iterator[Any]:
    """Measure the CPU time of charging `STEADY_RATE` addresses a second, here and at Redis."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    redis = Server(redis_pid, 0, Path("/"))
    before = membership.quotas.charged
    began_s, began_cpu_s, redis_s = time.monotonic(), time.process_time(), redis.cpu_s()
    for done, number in enumerate(numbers):
        table.spend((1 << 32 | number) << 1, time.monotonic())
        if done % STEADY_BATCH == STEADY_BATCH - 1:
            due_s = began_s + (done + 1) / STEADY_RATE
            yield deferLater(reactor, max(0.0, due_s - time.monotonic()))
    yield from drained(membership)
    charged = membership.quotas.charged - before
    found["keys a second, steadily"] = charged / (time.monotonic() - began_s)
    found["us a key, steadily"] = (time.process_time() - began_cpu_s) / charged * 1e6
    found["us a key, steadily, at Redis"] = (redis.cpu_s() - redis_s) / charged * 1e6


def measured(url: str, redis_pid: int, count: int) -> dict[str, float]:
    """Return microseconds of CPU for each admission and refusal in this process, and keys charged a second."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    found: dict[str, float] = {}

    def spend(gate: Gate, first: int) -> Iterator[Any]:
        for number in range(first, first + count, BATCH):
            now = time.monotonic()
            for each in range(number, number + BATCH):
                lease = gate.admit(address(each), "/", now)
                assert isinstance(lease, Lease)
                lease.release()
            yield deferLater(reactor, PAUSE_S)

    def refuse(gate: Gate) -> float:
        now = time.monotonic()
        while isinstance(gate.admit("192.0.2.1", "/", now), Lease):
            pass
        began_s = time.process_time()
        for _ in range(count):
            gate.refuse("192.0.2.1", "/", now)
        return (time.process_time() - began_s) / count * 1e6

    def work() -> Iterator[Any]:
        tune_gc()
        config = GateConfig(upgrade_quota=QUOTA)
        alone = Gate(config)
        gate, membership = member(url, config) if url else (None, None)
        while membership is not None and not membership.shards.of(0).is_up:
            yield deferLater(reactor, 0.01)
        for name, each in (("alone", alone), ("cluster", gate)):
            if each is None:
                continue
            yield from spend(each, 0)
            began_s = time.process_time()
            yield from spend(each, count)
            while membership is not None and membership.quotas.pending:
                yield deferLater(reactor, 0.001)
            found[f"admission, {name}"] = (time.process_time() - began_s) / count * 1e6
            found[f"refusal, {name}"] = refuse(each)
        if gate is not None and membership is not None:
            table = gate.shared_tables()["upgrade"]
            yield from charge_all(membership, table, range(2 * count, 3 * count), found)
            yield from charge_steadily(membership, table, range(3 * count, 3 * count + STEADY_KEYS), redis_pid, found)
            membership.stop()

    on_reactor(work)
    return found


def attempt(url: str, begin_at: float) -> tuple[int, float]:
    """Attempt one address again and again; return how often it was admitted, and the longest exchange in seconds."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    outcome = [0.0, 0.0]

    def work() -> Iterator[Any]:
        gate, membership = member(url, GateConfig(upgrade_quota=QUOTA))
        while not membership.shards.of(0).is_up:
            yield deferLater(reactor, 0.01)
        yield deferLater(reactor, max(0.0, begin_at - time.time()))
        ends_s = time.monotonic() + EACH_S
        while (now := time.monotonic()) < ends_s:
            lease = gate.admit("198.51.100.7", "/", now)
            if isinstance(lease, Lease):
                outcome[0] += 1
                lease.release()
            yield deferLater(reactor, 1 / ATTEMPTS_EACH_S)
        figures = membership.shards.of(0).figures
        outcome[1] = figures.total_s / max(1, sum(figures.counts))
        membership.stop()

    on_reactor(work)
    return int(outcome[0]), outcome[1]


def over_admission(url: str) -> tuple[float, float]:
    """Return what several processes admit beyond one bucket, and the bound of that."""
    begin_at = time.time() + 3.0
    command = [sys.executable, __file__, "--attempt", url, str(begin_at)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    answers = [json.loads(process.communicate()[0]) for process in processes]
    admitted, exchange_s = sum(answer[0] for answer in answers), max(answer[1] for answer in answers)
    one = QUOTA.burst + EACH_S / QUOTA.emission_interval_s
    # What is spent waits for the exchange in flight, so others know after two of them at most.
    return admitted - one, (PROCESSES - 1) * (1 + int(ATTEMPTS_EACH_S * 2 * exchange_s))


def bench(options: argparse.Namespace) -> list[Row]:
    """Measure everything."""
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as (url, pid):
        over, bound = over_admission(url)
        # Each in a process of its own, because a reactor runs only once.
        command = [sys.executable, __file__, "--measure", url, str(pid)]
        found = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(rounds)]
    return rows(found, over, float(bound))


def main() -> int:
    """Measure, and print the results."""
    if sys.argv[1:2] == ["--attempt"]:
        print(json.dumps(attempt(sys.argv[2], float(sys.argv[3]))))
        return 0
    if sys.argv[1:2] == ["--measure"]:
        pin_server()
        print(json.dumps(measured(sys.argv[2], int(sys.argv[3]), ADMISSIONS)))
        return 0
    return run_bench(__doc__ or "", bench)


def rows(found: Sequence[Mapping[str, float]], over: float, bound: float) -> list[Row]:
    """Return what was measured, and what it should be."""
    added = [each["admission, cluster"] - each["admission, alone"] for each in found]
    refusals = {OURS: "refusal, cluster", "no cluster": "refusal, alone"}
    return [
        Row("admission, what a cluster adds", "µs", {OURS: added}, "at most 10"),
        Row(
            "refusal in a cluster",
            "µs",
            {contestant: [each[name] for each in found] for contestant, name in refusals.items()},
            "at most 1.2 x no cluster",
        ),
        Row("addresses charged", "1/s", {OURS: [each["keys a second"] for each in found]}, "at least 1e4", "higher"),
        Row("CPU for each of them", "µs", {OURS: [each["us a key"] for each in found]}),
        *(
            Row(
                f"CPU for each of {STEADY_RATE:,} a second{where}", "µs", {OURS: [each[name] for each in found]}, target
            )
            for where, name, target in (
                ("", "us a key, steadily", "at most 10"),
                (", at Redis", "us a key, steadily, at Redis", "at most 15"),
            )
        ),
        Row(
            f"attempts admitted too much by {PROCESSES} processes",
            "",
            {OURS: [over], "bound": [bound]},
            "at most 1 x bound",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
