"""Real instances, a real Redis, competing peers and random faults; afterwards the time line is checked.

    python -m tests.chaos --seconds 600 --seed 7 --plan refuse

The faults are those of one random seed; `plan` names what there is, `faults` and `network_faults` how it is done. Then
everything is quiet until a phone at *every* instance reaches the same binary for every key, or `Plan.quiet_s` is over.
`report.INVARIANTS` is what must hold. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path

from tests.chaos import checks, health, memory
from tests.chaos.cast import Cast, cancel
from tests.chaos.faults import KINDS, workers_of
from tests.chaos.lateness.excuses import alone, blind_s
from tests.chaos.lateness.late import Late
from tests.chaos.lateness.watch import Watch
from tests.chaos.logs import seats_in
from tests.chaos.memory import descriptors
from tests.chaos.network.machines import Machines, machines_or_skip
from tests.chaos.pairs import ENDING
from tests.chaos.plan import Plan
from tests.chaos.report import Lateness, Report
from tests.chaos.stage import Target
from tests.chaos.timeline import Overlap, Rules, Timeline
from tests.chaos.world import REDIS, World
from tests.end_to_end.harness import answers

__all__ = ["Chaos", "run"]

LOOK_S = 0.3
"""How often the balancer checks the health of the instances."""
MOST_S = 240.0
"""How long a run may take beside its faults; then it fails, and all that it started is ended."""
WARM_UP_S = 3.2
"""How long a new data set does not answer for keys that it does not have."""


class Chaos(Cast):
    """One run of a plan."""

    def __init__(self, plan: Plan, world: World) -> None:
        super().__init__(plan, world)
        prefix = () if world.machines is None else world.machines.command(REDIS)
        self.watch = Watch(prefix, [("127.0.0.1", server.port) for server in world.servers], self.pids)

    # What goes on all the time

    async def check_health(self) -> None:
        """Be the health check of a balancer."""
        while True:
            await asyncio.gather(*(self._check(name) for name in self.names))
            await asyncio.sleep(LOOK_S)

    async def _check(self, name: str) -> None:
        relay = self.relay(name)
        if self.is_up(name) and await asyncio.to_thread(answers, relay.port, host=relay.host, deadline_s=1.0):
            self.uris[name] = relay.uri
        else:
            self.uris.pop(name, None)

    async def make_trouble(self, until: float) -> None:
        """Do one thing after the other. Several may be under way, but never two of a realm with one target."""
        tasks: list[asyncio.Task[None]] = []
        while (now := time.monotonic()) < until:
            await asyncio.sleep(min(self.random.uniform(*self.plan.pause_s), until - now))
            if time.monotonic() < until and (fault := self._fault(self.random.choice(self.plan.faults))) is not None:
                tasks.append(asyncio.create_task(fault))
        await asyncio.gather(*tasks)

    def _fault(self, name: str) -> Coroutine[None, None, None] | None:
        kind, lasts_s = KINDS[name], self.random.uniform(0.3, self.plan.longest_s)
        among = [REDIS] if kind.realm == "redis" else self.names
        among = among[self.plan.survivors :] if name in ENDING else among
        free = [target for target in among if (kind.realm, target) not in self.busy]
        # One instance is left, as a balancer needs it.
        if len(free) < (2 if len(among) == len(self.names) > 1 else 1):
            return None
        self.random.shuffle(free)
        target = Target(*free[: 1 + kind.takes_other])
        return self._do(name, target, lasts_s)

    async def _do(self, name: str, target: Target, lasts_s: float) -> None:
        kind = KINDS[name]
        taken = {(kind.realm, one) for one in target if one}
        self.busy |= taken
        try:
            await self.lasting(name, target.name, kind.act(self, target, lasts_s))
        finally:
            self.busy -= taken

    def lates(self) -> list[Late]:
        """Return when the machine was late until now."""
        of_switch = [] if self.world.machines is None else self.machines.late()
        return self.watch.lates(self.faults, of_switch)

    def read_logs(self) -> Timeline:
        """Return the time line, and note what logs must not have."""
        timeline = Timeline(faults=self.faults, lates=self.lates())
        for name, folder in self.logs:
            ended_at = self.ended_at.get(folder, float("inf"))
            with (folder / "log").open(encoding="utf-8", errors="replace") as lines:
                timeline.seats += seats_in(self._checked(lines, folder), name, ended_at, self.began)
        return timeline

    def _checked(self, lines: Iterable[str], folder: Path) -> Iterator[str]:
        found = 0
        for line in lines:
            found += "Traceback" in line or "Unhandled" in line
            yield line
        if found:
            self.problem("processes", f"there is a traceback in {folder / 'log'}")

    async def run(self) -> Report:
        """Run the plan."""
        await asyncio.gather(*(asyncio.to_thread(self.start, name) for name in self.names))
        await asyncio.to_thread(self.world.settle)
        await asyncio.sleep(WARM_UP_S)
        most = max(descriptors(self.relay(name).process.pid) for name in self.names)
        self.descriptors = most + checks.SPARE_DESCRIPTORS
        watching = [asyncio.create_task(self.watch.keep()), asyncio.create_task(self.check_health())]
        watching += [asyncio.create_task(health.watch(self, name)) for name in self.names]
        watching += [asyncio.create_task(memory.watch(self, name, found)) for name, found in self.memory.items()]
        began, peers = time.monotonic(), self.begin()
        await self.make_trouble(time.monotonic() + self.plan.seconds)
        self.quiet()
        await checks.reach(self)
        await checks.settled(self)
        await checks.events(self)
        checks.figures(self)
        checks.admission(self, time.monotonic() - began, alone(self.lates(), self.names))
        await self.leave(peers)
        await checks.orphans(self)
        await cancel(watching)
        return self.report(time.monotonic() - began)

    def report(self, seconds: float) -> Report:
        """Return what has happened in this time."""
        timeline, counts = self.read_logs(), self.traffic.counts
        rules = Rules(refuses_on_outage=self.plan.on_outage == "refuse", is_steady=self.plan.is_steady)
        judged = timeline.judged(rules)
        self._write(timeline, judged)
        for overlap, excuse in judged:
            if not excuse:
                self.problem("holders", f"not excused: {overlap}")
        if self.watch.has_ended:
            self.problem("processes", "the watchdog ended, so nobody knows whether the machine was late")
        if not counts.answers:
            self.problem("reach", "no phone was ever answered")
        closed = [closed for pair in self.pairs for closed in pair.closed]
        self.notes["peers"] = f"answers {counts.answers}, closes {counts.closes}, refused {counts.refused}"
        self.notes["pairs"] = f"{sum(pair.frames for pair in self.pairs)} frames there and back, {len(closed)} closes"
        self.notes["machine"] = self.watch.pressure()
        lateness = Lateness(timeline.lates, blind_s(timeline.lates, self.names), seconds)
        return Report(self.plan, len(timeline.seats), tuple(self.faults), judged, self.problems, self.notes, lateness)

    def _write(self, timeline: Timeline, judged: list[tuple[Overlap, str]]) -> None:
        """Keep the time line for people, beside the logs."""
        found = {
            "faults": [fault._asdict() for fault in timeline.faults],
            "late": [late._asdict() for late in timeline.lates],
            "overlaps": [overlap._asdict() | {"excuse": excuse} for overlap, excuse in judged],
        }
        (self.world.folder / "timeline.json").write_text(json.dumps(found, indent=1), encoding="ascii")


def run(plan: Plan, folder: Path) -> Report:
    """Run a plan in a folder, and return its report. Skips, as a test does, where there can be no network of it."""
    with contextlib.ExitStack() as stack:
        machines: Machines | None = None
        if plan.network:
            names = [chr(ord("a") + number) for number in range(plan.instances)]
            wired = names if plan.is_busy else ()
            machines = stack.enter_context(machines_or_skip([*names, REDIS], plan.seed, wired))
        world = World(folder, plan, machines)
        stack.callback(world.close)
        stack.callback(_wake, world)
        stack.callback(world.redis.kill)
        world.redis.start()
        return asyncio.run(asyncio.wait_for(Chaos(plan, world).run(), plan.seconds + MOST_S))


def _wake(world: World) -> None:
    """Let all processes go on that were stopped when a run was interrupted, so that they can be ended."""
    for relay in world.relays.values():
        if relay.process.poll() is None:
            for pid in workers_of(relay.process.pid):
                os.kill(pid, signal.SIGCONT)
            relay.signal(signal.SIGCONT)
