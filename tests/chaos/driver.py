"""Real instances, a real Redis, competing peers and random faults; afterwards the time line is checked.

    python -m tests.chaos.driver --seconds 600 --seed 7 --on-outage refuse

The faults are those of one random seed: instances are killed, ended in order, and stopped for a while; Redis is killed
and comes back empty, and is stopped for a while. Then everything is quiet for a while, and a phone at *every* instance
must reach the same binary for every key. Times are seconds.

What must hold:

* two instances serve one key only as `tests.chaos.timeline.Rules` excuses it;
* after the quiet, each key has one binary, which every phone reaches wherever it comes in;
* nobody is disconnected because Redis is away: without other faults, no binary is closed during an outage;
* an outage ends without a restart, and health stays green throughout.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.logs import seats_in
from tests.chaos.timeline import Fault, Overlap, Rules, Timeline, longest
from tests.chaos.traffic import Balancer, Traffic, asked
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.harness import Launch, Relay, answers
from tests.support.redis_server import running

__all__ = ["Plan", "Report", "run"]

LOOK_S = 0.3
"""How often the balancer checks the health of the instances."""
PAUSE_S = (1.0, 3.5)
FAULTS = ("kill", "end", "stop", "redis-kill", "redis-stop")
DRAIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run."""

    seconds: float
    quiet_s: float = 14.0
    seed: int = 1
    instances: int = 3
    keys: int = 12
    rivals: int = 2
    phones: int = 4
    faults: tuple[str, ...] = FAULTS
    on_outage: str = "refuse"
    has_affinity: bool = False


@dataclass
class Report:
    """What a run has shown. ``problems`` is empty if everything held."""

    plan: Plan
    seats: int = 0
    faults: int = 0
    overlaps: list[Overlap] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return some lines for people."""
        lines = [
            f"{self.plan}",
            f"{self.faults} faults, {self.seats} seats, {len(self.overlaps)} overlaps, "
            f"longest {longest(self.overlaps):.2f} s",
            *self.notes,
            *(f"PROBLEM: {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


class Chaos:
    """One run of a plan."""

    def __init__(self, plan: Plan, world: Cluster) -> None:
        self.plan = plan
        self.world = world
        self.random = random.Random(plan.seed)
        self.names = [chr(ord("a") + number) for number in range(plan.instances)]
        self.healthy: list[str] = []
        self.faults: list[Fault] = []
        self.ended_at: dict[Path, float] = {}
        self.busy: set[str] = set()
        balancer = Balancer(lambda: self.healthy, random.Random(plan.seed + 1), plan.has_affinity)
        self.traffic = Traffic(balancer)
        self.keys = [f"key-{number}" for number in range(plan.keys)]
        self.logs: list[tuple[str, Path]] = []
        self.problems: list[str] = []

    def start(self, name: str) -> None:
        """Start an instance; blocks until it is ready."""
        options = ["--log-format", "json", "--drain-over", str(DRAIN_S), "--cluster-on-outage", self.plan.on_outage]
        relay = self.world.start(name, options)
        self.logs.append((name, relay.directory))

    # What goes on all the time

    async def check_health(self) -> None:
        """Be the health check of a balancer."""
        while not self.traffic.is_over:
            relays = [relay for name, relay in self.world.relays.items() if name not in self.busy]
            found = await asyncio.gather(*(asyncio.to_thread(answers, relay.port) for relay in relays))
            self.healthy = [relay.uri for relay, is_well in zip(relays, found, strict=True) if is_well]
            await asyncio.sleep(LOOK_S)

    async def make_trouble(self, until: float) -> None:
        """Do one thing after the other. Several may be under way, but never two with one process."""
        tasks: list[asyncio.Task[None]] = []
        while (now := time.monotonic()) < until:
            await asyncio.sleep(min(self.random.uniform(*PAUSE_S), until - now))
            kind = self.random.choice(self.plan.faults)
            if time.monotonic() < until and (fault := self._fault(kind)) is not None:
                tasks.append(asyncio.create_task(fault))
        await asyncio.gather(*tasks)

    def _fault(self, kind: str) -> Coroutine[None, None, None] | None:
        lasts_s = self.random.uniform(0.3, 8.0)
        if kind.startswith("redis"):
            if "redis" in self.busy:
                return None
            self.busy.add("redis")
            return self._redis(kind, lasts_s)
        free = [name for name in self.names if name not in self.busy]
        # One instance is left, as a balancer needs it.
        if len(free) < 2:
            return None
        name = self.random.choice(free)
        self.busy.add(name)
        acts: dict[str, Callable[[str, float], Coroutine[None, None, None]]] = {
            "kill": self._kill,
            "end": self._end,
            "stop": self._stop,
        }
        return acts[kind](name, lasts_s)

    async def _redis(self, kind: str, lasts_s: float) -> None:
        began = time.time()
        redis = self.world.redis
        if kind == "redis-kill":
            redis.kill()
            await asyncio.sleep(lasts_s / 3)
            await asyncio.to_thread(redis.start)
        else:
            redis.pause()
            await asyncio.sleep(lasts_s)
            redis.go_on()
        self.faults.append(Fault(kind, "redis", began, time.time()))
        self.busy.discard("redis")

    async def _kill(self, name: str, lasts_s: float) -> None:
        began, relay = time.time(), self.world.relays[name]
        relay.process.kill()
        await asyncio.to_thread(relay.process.wait)
        self.ended_at[relay.directory] = time.time()
        relay.discard()
        await self._again(name, "kill", began, lasts_s)

    async def _end(self, name: str, lasts_s: float) -> None:
        began, relay = time.time(), self.world.relays[name]
        relay.signal(signal.SIGTERM)
        code = await asyncio.to_thread(relay.process.wait, 60)
        if code != 0:
            self.problems.append(f"instance {name} ended with code {code}")
        self.ended_at[relay.directory] = time.time()
        relay.discard()
        await self._again(name, "end", began, lasts_s)

    async def _again(self, name: str, kind: str, began: float, lasts_s: float) -> None:
        await asyncio.sleep(lasts_s / 3)
        await asyncio.to_thread(self.start, name)
        self.faults.append(Fault(kind, name, began, time.time()))
        self.busy.discard(name)

    async def _stop(self, name: str, lasts_s: float) -> None:
        began, relay = time.time(), self.world.relays[name]
        relay.signal(signal.SIGSTOP)
        await asyncio.sleep(lasts_s)
        relay.signal(signal.SIGCONT)
        self.faults.append(Fault("stop", name, began, time.time()))
        self.busy.discard(name)

    # The end

    async def check_reach(self) -> None:
        """Check that a phone at every instance reaches the same binary, for every key."""
        for key in self.keys:
            found: set[int | None] = set()
            for _ in range(5):
                found = {await asked(relay.uri, key) for relay in self.world.relays.values()}
                if len(found) == 1 and None not in found:
                    break
                await asyncio.sleep(1.0)
            if len(found) != 1 or None in found:
                self.problems.append(f"after the quiet, phones for {key} reach {sorted(map(str, found))}")

    def read_logs(self) -> Timeline:
        """Return the time line, and note what logs must not have."""
        timeline = Timeline(faults=self.faults)
        for name, folder in self.logs:
            text = (folder / "log").read_text(encoding="utf-8", errors="replace")
            if "Traceback" in text or "Unhandled" in text:
                self.problems.append(f"there is a traceback in {folder / 'log'}")
            timeline.seats += seats_in(text.splitlines(), name, self.ended_at.get(folder, float("inf")))
        return timeline

    async def run(self) -> Report:
        """Run the plan."""
        tasks = [asyncio.create_task(self.check_health())]
        await asyncio.sleep(4.0)  # a new data set is warmed up
        number = 0
        for key in self.keys:
            for _ in range(self.plan.rivals):
                number += 1
                tasks.append(asyncio.create_task(self.traffic.keep_binary(key, number)))
        tasks += [asyncio.create_task(self.traffic.keep_phoning(self.keys)) for _ in range(self.plan.phones)]
        await self.make_trouble(time.monotonic() + self.plan.seconds)
        self.traffic.is_quiet = True
        await asyncio.sleep(self.plan.quiet_s)
        await self.check_reach()
        self.traffic.is_over = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self.report()

    def report(self) -> Report:
        """Return what has happened."""
        timeline = self.read_logs()
        only_redis = all(kind.startswith("redis") for kind in self.plan.faults)
        # With affinity and a set of instances that does not change, nothing depends on Redis.
        is_strict = self.plan.on_outage == "refuse" or (self.plan.has_affinity and only_redis)
        rules = Rules(refuses_on_outage=is_strict)
        report = Report(self.plan, len(timeline.seats), len(self.faults), timeline.overlaps(), self.problems)
        report.problems += [f"not excused: {overlap}" for overlap in timeline.violations(rules)]
        counts = self.traffic.counts
        if not counts.answers:
            report.problems.append("no phone was ever answered")
        kinds = {kind: sum(fault.kind == kind for fault in self.faults) for kind in self.plan.faults}
        report.notes = [
            f"faults {kinds}",
            f"answers {counts.answers}, closes {counts.closes}, refused {counts.refused}",
        ]
        return report


def run(plan: Plan, folder: Path) -> Report:
    """Run a plan in a folder, and return its report."""
    world = Cluster(folder, launch=Launch())
    chaos = Chaos(plan, world)
    with running(world.redis):
        try:
            for name in chaos.names:
                chaos.start(name)
            world.settle()
            return asyncio.run(chaos.run())
        finally:
            for relay in world.relays.values():
                _wake(relay)
            with contextlib.suppress(AssertionError, ProcessLookupError):
                world.redis.go_on()
            world.close()


def _wake(relay: Relay) -> None:
    if relay.process.poll() is None:
        relay.signal(signal.SIGCONT)


def main() -> int:
    """Run what the command line asks for; return 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--on-outage", choices=("local", "refuse"), default="refuse")
    parser.add_argument("--affinity", action="store_true", help="a balancer that hashes the key")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=FAULTS)
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which is kept")
    options = parser.parse_args()
    plan = Plan(
        seconds=options.seconds,
        seed=options.seed,
        on_outage=options.on_outage,
        has_affinity=options.affinity,
        faults=tuple(options.faults),
    )
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyryrelay-chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        report = run(plan, folder)
    sys.stdout.write(f"{report}\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
