"""The processes of a run: instances and Redis, on this machine or each on one of its own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from tests.chaos.clocks import Clock
from tests.chaos.failover import RedisGroup
from tests.chaos.network.machines import Machines
from tests.chaos.plan import Plan
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.harness import LOCALHOST, Launch, reserve_port
from tests.support.ports import worker_ports
from tests.support.redis_server import RedisServer

__all__ = ["REDIS", "World"]

REDIS: Final = "redis"
"""The machine of Redis."""


class World(Cluster):
    """See the module's docstring. ``machines`` has one for each instance of the plan, and `REDIS`."""

    redis: RedisServer | RedisGroup  # type: ignore[assignment]  # a group is used like one server

    def __init__(self, folder: Path, plan: Plan, machines: Machines | None = None) -> None:
        super().__init__(folder)
        self.plan = plan
        self.machines = machines
        self.clocks: dict[str, Clock] = {}
        if plan.sentinels:
            self.redis = RedisGroup(folder / "redis")
        elif machines is not None:
            self.redis = RedisServer(
                folder / "redis",
                port=6379,
                host=machines.address(REDIS),
                prefix=machines.command(REDIS),
                within=functools.partial(machines.within, REDIS),
            )

    @property
    def servers(self) -> list[RedisServer]:
        """Return all servers of Redis."""
        return self.redis.servers if isinstance(self.redis, RedisGroup) else [self.redis]

    @property
    def peers(self) -> str:
        """Return the network of all instances."""
        return LOCALHOST if self.machines is None else "10.213.0.0/24"

    def launch_of(self, name: str) -> Launch:
        """Return how an instance is started: on its machine, with a clock of its own if the plan sets clocks."""
        environment = {}
        if self.plan.clocks:
            if name not in self.clocks:
                self.clocks[name] = Clock(self.folder, name)
            environment = self.clocks[name].environment
        if self.machines is None:
            return Launch(environment=environment)
        host = self.machines.address(name)
        listen = [host, *(self.machines.wire(name)[1:] if name in self.machines.wired else ())]
        return Launch(
            listen=[f"tcp:{{port}}:interface={address}" for address in listen],
            prefix=self.machines.command(name),
            environment=environment,
            host=host,
            within=functools.partial(self.machines.within, name),
        )

    def options(self, name: str) -> list[str]:
        """Return the options that make a relay an instance, or one for each of its workers."""
        if self.plan.workers == 1:
            return super().options(name)
        if name not in self.ports:
            self.ports[name] = self._ports_of_workers()
        options = super().options(name)
        port, place = str(self.ports[name]), self.launch_of(name).host
        changed = [word.replace(f"{place}:{port}", f"{place}:{port}{{worker}}") for word in options]
        changed = [word.replace(f"tcp:{port}:", f"tcp:{port}{{worker}}:") for word in changed]
        return [*changed, "--workers", str(self.plan.workers)]

    def _ports_of_workers(self) -> int:
        """Return a number to which a worker's digit is appended."""
        stem = worker_ports(self.plan.workers)
        while stem in self.ports.values():  # a reserved port is not taken
            stem = worker_ports(self.plan.workers)
        for worker in range(self.plan.workers):
            self._held.enter_context(reserve_port(port=stem * 10 + worker))
        return stem

    def members(self, name: str) -> list[str]:
        """Return the names that an instance has in Redis."""
        if self.plan.workers == 1:
            return super().members(name)
        place = self.launch_of(name).host
        return [f"{place}:{self.ports[name]}{worker}" for worker in range(self.plan.workers)]
