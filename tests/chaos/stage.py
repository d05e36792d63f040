"""What faults act upon: the processes of a run, and what is known of them. Times are seconds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from tests.chaos.lateness.late import SWITCH
from tests.chaos.network.machines import Machines
from tests.chaos.plan import Plan
from tests.chaos.timeline import Fault
from tests.chaos.world import REDIS, World
from tests.end_to_end.harness import Relay
from tests.end_to_end.processes import workers_of

__all__ = ["Kind", "Stage", "Target"]

DRAIN_S: Final = 1.0
GRACE_S: Final = 2.0


class Target(NamedTuple):
    """What a fault is done to: an instance, or Redis. ``other`` is another instance."""

    name: str
    other: str = ""


class Stage:
    """See the module's docstring."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.plan = plan
        self.world = world
        self.random = random.Random(plan.seed)
        self.names = [chr(ord("a") + number) for number in range(plan.instances)]
        self.busy: set[tuple[str, str]] = set()
        """Realms of faults, and what they are done to now."""
        self.faults: list[Fault] = []
        self.ended_at: dict[Path, float] = {}
        self.logs: list[tuple[str, Path]] = []
        self.problems: dict[str, list[str]] = {}
        """What did not hold, by invariant."""
        self.notes: dict[str, str] = {}

    @property
    def machines(self) -> Machines:
        """Return the machines of a plan with a network."""
        assert self.world.machines is not None
        return self.world.machines

    def problem(self, invariant: str, what: str) -> None:
        """Note that an invariant did not hold."""
        self.problems.setdefault(invariant, []).append(what)

    def start(self, name: str) -> None:
        """Start an instance; blocks until it is ready."""
        options = ["--log-format", "json", "--drain-over", str(DRAIN_S), "--grace", str(GRACE_S)]
        options += ["--cluster-on-outage", self.plan.on_outage, *self.more_options()]
        if self.plan.nostr:
            options += ["--nostr", "--nostr-preset", "open"]
            options += ["--nostr-database", f"sqlite:{self.world.folder / name}.sqlite"]
        try:
            relay = self.world.start(name, options)
        except AssertionError as error:
            # Another program on this machine took a port in the moment before the relay did.
            if "Address already in use" not in str(error):
                raise
            relay = self.world.start(name, options)
        self.logs.append((name, relay.directory))

    def more_options(self) -> list[str]:
        """Return options that the checks of this run need."""
        return []

    def pids(self) -> dict[str, list[int]]:
        """Return the numbers of the processes that serve now, by their places."""
        found = {REDIS: [server.pid for server in self.world.servers if server.is_running]}
        for name, relay in self.world.relays.items():
            if relay.process.poll() is None:
                found[name] = [relay.process.pid, *workers_of(relay.process.pid)]
        if self.world.machines is not None:
            found[SWITCH] = [self.world.machines.switch_pid]
        return found

    def is_up(self, name: str) -> bool:
        """Tell whether an instance should answer now."""
        return ("process", name) not in self.busy

    def relay(self, name: str) -> Relay:
        """Return the process of an instance."""
        return self.world.relays[name]

    def ended(self, relay: Relay) -> None:
        """Note that a process has ended just now."""
        self.ended_at[relay.directory] = time.time()
        relay.discard()

    async def lasting(self, kind: str, what: str, act: Awaitable[object]) -> None:
        """Let something be done, and note what it was and how long it took."""
        began = time.time()
        try:
            await act
        finally:
            self.faults.append(Fault(kind, what, began, time.time()))

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Kind(NamedTuple):
    """A kind of fault: two of one realm are never done to the same target at once."""

    realm: str
    act: Callable[[Stage, Target, float], Awaitable[None]]
    takes_other: bool = False
