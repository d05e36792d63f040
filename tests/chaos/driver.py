"""Real instances, a real Redis, competing peers and random faults; afterwards the time line is checked.

    python -m tests.chaos --seconds 600 --seed 7 --plan refuse

The faults are those of one random seed; `plan` names what there is, `faults` and `network_faults` how it is done. Then
everything is quiet until a phone at *every* instance reaches the same binary for every key, or `Plan.quiet_s` is over.
`report.INVARIANTS` is what must hold. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

from tests.chaos import health, memory
from tests.chaos.admission import Hammer, Quota, bound
from tests.chaos.faults import KINDS, workers_of
from tests.chaos.logs import seats_in
from tests.chaos.network.machines import CLIENTS, HAMMER, Machines, machines_or_skip
from tests.chaos.orphans import descriptors, entries, lease_problems
from tests.chaos.pairs import ENDING, Pair
from tests.chaos.plan import Plan
from tests.chaos.report import Report
from tests.chaos.stage import GRACE_S, Stage, Target
from tests.chaos.timeline import Rules, Timeline
from tests.chaos.traffic import Balancer, Traffic, asked
from tests.chaos.world import REDIS, World
from tests.end_to_end.harness import answers

__all__ = ["Chaos", "run"]

LOOK_S = 0.3
"""How often the balancer checks the health of the instances."""
WARM_UP_S = 3.2
"""How long a new data set does not answer for keys that it does not have."""
QUOTA = Quota()
SPARE_DESCRIPTORS = 3
"""What a process may have open for a moment: it is being asked while its files are counted."""


class Chaos(Stage):
    """One run of a plan."""

    def __init__(self, plan: Plan, world: World) -> None:
        super().__init__(plan, world)
        self.began = time.time()
        self.uris: dict[str, str] = {}
        """Where instances are that are healthy."""
        self.keys = [f"key-{number}" for number in range(plan.keys)]
        balancer = Balancer(lambda: list(self.uris.values()), random.Random(plan.seed + 1), plan.has_affinity)
        self.traffic = Traffic(balancer)
        homes = [(name, self.names[(at + 1) % len(self.names)]) for at, name in enumerate(self.names)]
        homes += [(name, name) for name in self.names]
        homes *= plan.crowd
        self.pairs = [Pair(f"pair-{at}", home, self.uris.get, plan.frame_s) for at, home in enumerate(homes)]
        self.hammer = Hammer(self._addresses()[1], self._targets)
        self.descriptors = 0
        self.memory: dict[str, list[memory.Sample]] = {name: [] for name in self.names[: plan.survivors]}

    def _addresses(self) -> tuple[str, str]:
        """Return the addresses of the peers, and of who asks for too much."""
        if self.world.machines is None:
            return "127.0.0.1", "127.0.7.7"
        return self.world.machines.address(CLIENTS), HAMMER

    def _targets(self) -> list[tuple[str, int]]:
        return [self.relay(name).address for name in self.uris]

    def more_options(self) -> list[str]:
        """Return the quota that is checked, and exempt all others from it."""
        return ["--upgrade-quota", QUOTA.option, "--allow", self._addresses()[0]]

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

    # The end

    async def check_reach(self) -> None:
        """Check that a phone at every instance reaches the same binary, for every key, twice."""
        end, right, left = time.monotonic() + self.plan.quiet_s, 0, dict[str, list[str]]()
        while right < 2 and (time.monotonic() < end or right):
            found = await asyncio.gather(*map(self._reached, self.keys))
            left = {key: sorted(map(str, who)) for key, who in zip(self.keys, found, strict=True) if not _is_one(who)}
            right = 0 if left else right + 1
            await asyncio.sleep(1.0)
        for key, who in left.items():
            self.problem("reach", f"phones for {key} reach {who}")

    async def _reached(self, key: str) -> set[int | None]:
        return set(await asyncio.gather(*(asked(self.relay(name).uri, key, 3.0) for name in self.names)))

    async def check_settled(self) -> None:
        """Check that all instances use Redis, and that pairs talk."""
        since = time.time()
        for name in self.names:
            relay = self.relay(name)
            if not await _becomes(partial(health.is_settled, relay), self.plan.quiet_s):
                self.problem("outages", f"instance {name}: {health.figures_of(relay)}")
        await _becomes(lambda: all(pair.answered_at > since for pair in self.pairs), self.plan.quiet_s)
        for pair in self.pairs:
            for problem in pair.problems(self.faults, since):
                self.problem("pairs", problem)

    async def check_orphans(self) -> None:
        """Check what is left when all clients have gone."""
        redis, members = self.world.redis, {member for name in self.names for member in self.world.members(name)}
        if not await _becomes(lambda: not entries(redis), GRACE_S + 12.0):
            left = entries(redis)
            self.problem("orphans", f"{len(left)} entries, such as {left[:3]}")
        for problem in lease_problems(redis, members)[:3]:
            self.problem("orphans", problem)
        for name in self.names:
            pid = self.relay(name).process.pid
            if not await _becomes(partial(self._has_few_descriptors, pid), 8.0):
                self.problem("orphans", f"instance {name} has {descriptors(pid)} descriptors, not {self.descriptors}")

    def _has_few_descriptors(self, pid: int) -> bool:
        return descriptors(pid) <= self.descriptors

    def check_memory(self) -> None:
        """Check that the instances that lived all the time have not grown, and note what they took of the processor."""
        for name, samples in self.memory.items():
            early, late, problem = memory.growth(samples)
            share = memory.cpu_s(self.relay(name).process.pid) / (time.time() - self.began)
            self.notes[f"instance {name}"] = f"{early / 1e6:.1f} MB, {late / 1e6:.1f} MB later, {share:.0%} of a core"
            if problem:
                self.problem("memory", f"instance {name}: {problem}")

    def check_admission(self, window_s: float) -> None:
        """Check what was admitted of the address that asks for too much."""
        most = bound(QUOTA, len(self.names), self.hammer.attempts_per_s, window_s, self.faults)
        self.notes["admitted"] = f"{self.hammer.admitted}, bound {most:.0f}, refused {self.hammer.refused}"
        if self.hammer.admitted > most:
            self.problem("admission", f"{self.hammer.admitted} were admitted, but at most {most:.0f} may be")

    def read_logs(self) -> Timeline:
        """Return the time line, and note what logs must not have."""
        timeline = Timeline(faults=self.faults)
        for name, folder in self.logs:
            text = (folder / "log").read_text(encoding="utf-8", errors="replace")
            if "Traceback" in text or "Unhandled" in text:
                self.problem("processes", f"there is a traceback in {folder / 'log'}")
            ended_at = self.ended_at.get(folder, float("inf"))
            timeline.seats += seats_in(text.splitlines(), name, ended_at, self.began)
        return timeline

    async def run(self) -> Report:
        """Run the plan."""
        await asyncio.gather(*(asyncio.to_thread(self.start, name) for name in self.names))
        await asyncio.to_thread(self.world.settle)
        await asyncio.sleep(WARM_UP_S)
        self.descriptors = max(descriptors(self.relay(name).process.pid) for name in self.names) + SPARE_DESCRIPTORS
        watching = [asyncio.create_task(self.check_health())]
        watching += [asyncio.create_task(health.watch(self, name)) for name in self.names]
        watching += [asyncio.create_task(memory.watch(self, name, found)) for name, found in self.memory.items()]
        began, peers = time.monotonic(), self._peers()
        await self.make_trouble(time.monotonic() + self.plan.seconds)
        self.traffic.is_quiet = True
        await self.check_reach()
        await self.check_settled()
        self.check_memory()
        self.check_admission(time.monotonic() - began)
        self.traffic.is_over = True
        for pair in self.pairs:
            pair.is_over = True
        await _cancel(peers)
        await self.check_orphans()
        await _cancel(watching)
        return self.report()

    def _peers(self) -> list[asyncio.Task[None]]:
        """Begin all that clients do."""
        traffic = self.traffic
        rivals = [key for key in self.keys for _ in range(self.plan.rivals)]
        all_of_them = [traffic.keep_binary(key, number) for number, key in enumerate(rivals, 1)]
        all_of_them += [traffic.keep_phoning(self.keys) for _ in range(self.plan.phones)]
        all_of_them += [traffic.keep_passing() for _ in range(3)]
        all_of_them += [pair.keep() for pair in self.pairs]
        return [asyncio.create_task(one) for one in (*all_of_them, self.hammer.keep_on())]

    def report(self) -> Report:
        """Return what has happened."""
        timeline, counts = self.read_logs(), self.traffic.counts
        rules = Rules(refuses_on_outage=self.plan.on_outage == "refuse", is_steady=self.plan.is_steady)
        for overlap in timeline.violations(rules):
            self.problem("holders", f"not excused: {overlap}")
        if not counts.answers:
            self.problem("reach", "no phone was ever answered")
        closed = [closed for pair in self.pairs for closed in pair.closed]
        self.notes["peers"] = f"answers {counts.answers}, closes {counts.closes}, refused {counts.refused}"
        self.notes["pairs"] = f"{sum(pair.frames for pair in self.pairs)} frames there and back, {len(closed)} closes"
        return Report(
            self.plan, len(timeline.seats), tuple(self.faults), timeline.overlaps(), self.problems, self.notes
        )


def _is_one(who: set[int | None]) -> bool:
    return len(who) == 1 and None not in who


async def _becomes(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait until a condition holds; return False if it does not in this time."""
    end = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(0.2)
    return True


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run(plan: Plan, folder: Path) -> Report:
    """Run a plan in a folder, and return its report. Skips, as a test does, where there can be no network of it."""
    with contextlib.ExitStack() as stack:
        machines: Machines | None = None
        if plan.network:
            names = [chr(ord("a") + number) for number in range(plan.instances)]
            machines = stack.enter_context(machines_or_skip([*names, REDIS], plan.seed))
        world = World(folder, plan, machines)
        stack.callback(world.close)
        stack.callback(_wake, world)
        stack.callback(world.redis.kill)
        world.redis.start()
        return asyncio.run(Chaos(plan, world).run())


def _wake(world: World) -> None:
    """Let all processes go on that were stopped when a run was interrupted, so that they can be ended."""
    for relay in world.relays.values():
        if relay.process.poll() is None:
            for pid in workers_of(relay.process.pid):
                os.kill(pid, signal.SIGCONT)
            relay.signal(signal.SIGCONT)
