"""The jails of a supervisor and of its workers, which talk over queues."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.pyry import address
from tests.support.service import Threads
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from pyryrelay.guard import Jail, JailPolicy
from pyryrelay.jail.keeper import JailKeeper
from pyryrelay.jail.store import JailStore
from pyryrelay.workers.jails import JailOfSupervisor, JailOfWorker

POLICY: Final = JailPolicy(3, 60.0, 600.0, 86_400.0)
ADDRESSES: Final = [address(f"192.0.2.{number}") for number in range(6)]
WALL_S: Final = 1e9


class Talk:
    """One end of the connection between a worker and its supervisor, as `Rpc` has it: what is told waits."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
        self.told: list[tuple[str, dict[str, object]]] = []

    def on(self, name: str, handler: Callable[[Mapping[str, Any]], Any]) -> None:
        """Have a message handled."""
        self.handlers[name] = handler

    def tell(self, name: str, /, **body: object) -> None:
        """Keep a message until it is delivered."""
        self.told.append((name, json.loads(json.dumps(body))))


class World:
    """A supervisor and its workers, with one clock."""

    def __init__(self, count: int, path: Path | None = None, jails: Sequence[Jail] = ()) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.handlers: dict[str, Callable[[int, Mapping[str, Any]], Any]] = {}
        self.workers: list[Worker] = []
        jail = Jail(POLICY)
        self.threads = Threads()
        store = None if path is None else JailStore(path, self.lines.append)
        self.keeper = JailKeeper(jail, store, self.clock.seconds, self.wall, self.lines.append, self.threads.defer)
        self.common = JailOfSupervisor(jail, self.keeper, self, self.clock.seconds, self.wall)
        self.keeper.start()
        for number in range(count):
            self.start(*jails[number : number + 1])

    def wall(self) -> float:
        """Return the time of day."""
        return WALL_S + self.clock.seconds()

    def start(self, jail: Jail | None = None) -> Worker:
        """Start a worker, which gets all sentences."""
        worker = Worker(self, Jail(POLICY) if jail is None else jail)
        self.workers.append(worker)
        return worker

    def tell_all(self, name: str, /, **body: object) -> None:
        """See `Supervisor`."""
        for worker in self.workers:
            worker.to_worker.append((name, json.loads(json.dumps(body))))

    def tell(self, index: int, name: str, /, **body: object) -> None:
        """See `Supervisor`."""
        self.workers[index].to_worker.append((name, json.loads(json.dumps(body))))

    @property
    def indexes(self) -> Sequence[int]:
        """See `Supervisor`."""
        return range(len(self.workers))

    def on(self, name: str, handler: Callable[[int, Mapping[str, Any]], Any]) -> None:
        """See `Supervisor`."""
        self.handlers[name] = handler

    def settle(self) -> None:
        """Let a second pass in all processes, and all messages arrive."""
        for worker in self.workers:
            worker.sync()
        self.deliver()
        self.keeper.sync()
        self.common.tell_cluster()
        self.deliver()

    def deliver(self) -> None:
        """Deliver all messages."""
        while any(worker.deliver() for worker in self.workers):
            pass

    def jailed(self) -> list[set[str]]:
        """Return the running sentences of the supervisor and of all workers."""
        jails = [self.common.jail, *(worker.jail for worker in self.workers)]
        now = self.clock.seconds()
        return [{str(one.network) for one in jail.entries(now) if now < one.until_s} for jail in jails]


class Worker:
    """One worker."""

    def __init__(self, world: World, jail: Jail) -> None:
        self.world = world
        self.jail = jail
        self.to_worker: list[tuple[str, dict[str, object]]] = []
        self.talk = Talk()
        self.keeper = JailKeeper(self.jail, None, world.clock.seconds, world.wall, world.lines.append, maybeDeferred)
        self.own = JailOfWorker(self.jail, self.keeper, self.talk, world.clock.seconds, world.wall)  # type: ignore[arg-type]
        self.keeper.start(None, json.loads(json.dumps(world.common.rows())))

    def sync(self) -> None:
        """Do what it does each second."""
        self.keeper.sync()

    def deliver(self) -> bool:
        """Deliver one message in each direction; return whether there was any."""
        busy = bool(self.talk.told or self.to_worker)
        if self.talk.told:
            name, body = self.talk.told.pop(0)
            self.world.handlers[name](self.world.workers.index(self), body)
        if self.to_worker:
            name, body = self.to_worker.pop(0)
            self.talk.handlers[name](body)
        return busy

    def strike(self, number: int) -> None:
        """Refuse an address so often that it is jailed."""
        for _ in range(POLICY.refusals):
            self.jail.strike(ADDRESSES[number].key, self.world.clock.seconds())
