"""All clients of a run: rivals, phones, pairs, publishers, and one that asks for too much. Times are seconds."""

from __future__ import annotations

import asyncio
import os
import random
import time

from tests.chaos.admission import Hammer, Quota
from tests.chaos.bulk.load import Load, target_share
from tests.chaos.memory import Sample
from tests.chaos.network.machines import CLIENTS, HAMMER, STRANGERS
from tests.chaos.notes import Notes
from tests.chaos.pairs import Pair
from tests.chaos.plan import Plan
from tests.chaos.stage import Stage
from tests.chaos.traffic import Balancer, Traffic
from tests.chaos.world import World
from tests.end_to_end.harness import Relay

__all__ = ["QUOTA", "Cast", "cancel"]

QUOTA = Quota()


class Cast(Stage):
    """A stage with its clients."""

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
        self.published = Notes(self.names, self.uris.get, random.Random(plan.seed + 2))
        self.hammer = Hammer(self._addresses()[1], self._targets)
        self.load = None
        if plan.is_busy:
            share = plan.share or target_share(len(self.names), os.cpu_count() or 1)
            self.load = Load(self.names, self._healthy, plan.seed, self._addresses()[2:], share, self._wire)
        self.descriptors = 0
        self.memory: dict[str, list[Sample]] = {name: [] for name in self.names[: plan.survivors]}

    def _addresses(self) -> list[str]:
        """Return the addresses of the peers, of the one that asks for too much, and of others that do."""
        if self.world.machines is None:
            return ["127.0.0.1", "127.0.7.7", *(f"127.0.8.{number}" for number in range(1, 9))]
        return [self.world.machines.address(CLIENTS), HAMMER, *STRANGERS]

    def _wire(self, name: str) -> str:
        """Return the address at which bulk load comes to an instance."""
        machines = self.world.machines
        return self.relay(name).host if machines is None else machines.wire(name)[1]

    def _near(self) -> list[str]:
        """Return the addresses that no quota holds for: of the peers, and of bulk load."""
        machines = self.world.machines
        wired = [] if machines is None else [machines.wire(name)[0] for name in machines.wired]
        return [self._addresses()[0], *wired]

    def _healthy(self) -> dict[str, Relay]:
        return {name: self.relay(name) for name in self.uris}

    def _targets(self) -> list[tuple[str, int]]:
        return [self.relay(name).address for name in self.uris]

    def more_options(self) -> list[str]:
        """Return the quota that is checked, and exempt all others from it."""
        return ["--upgrade-quota", QUOTA.option, *(word for near in self._near() for word in ("--allow", near))]

    def begin(self) -> list[asyncio.Task[None]]:
        """Begin all that clients do."""
        traffic = self.traffic
        rivals = [key for key in self.keys for _ in range(self.plan.rivals)]
        all_of_them = [traffic.keep_binary(key, number) for number, key in enumerate(rivals, 1)]
        all_of_them += [traffic.keep_phoning(self.keys) for _ in range(self.plan.phones)]
        all_of_them += [traffic.keep_passing() for _ in range(3)]
        all_of_them += [pair.keep() for pair in self.pairs]
        if self.plan.nostr:
            all_of_them += [self.published.keep_publishing() for _ in range(4)]
            all_of_them += [self.published.keep_listening(name) for name in self.names]
        if self.load is not None:
            all_of_them.append(self.load.keep())
        return [asyncio.create_task(one) for one in (*all_of_them, self.hammer.keep_on())]

    def quiet(self) -> None:
        """Let binaries stay, and nothing new begin."""
        self.traffic.is_quiet = self.published.is_quiet = True

    async def leave(self, peers: list[asyncio.Task[None]]) -> None:
        """End what `begin` has begun."""
        self.traffic.is_over = True
        for pair in self.pairs:
            pair.is_over = True
        await cancel(peers)


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    """End tasks, and wait until they have."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
