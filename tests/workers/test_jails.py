"""One jail for all workers: jails that talk over queues, in any order, and a worker that is killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.pyry import address
from tests.support.service import Threads
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from pyryrelay.guard import CidrSet, Jail, JailPolicy
from pyryrelay.jail.keeper import JailKeeper
from pyryrelay.jail.store import JailStore
from pyryrelay.mounts import Settings
from pyryrelay.workers.jails import MESSAGE, JailOfSupervisor, JailOfWorker
from pyryrelay.workers.rpc import Rpc

POLICY = JailPolicy(3, 60.0, 600.0, 86_400.0)
ADDRESSES = [address(f"192.0.2.{number}") for number in range(6)]
FIRST, SECOND = ADDRESSES[:2]
WALL_S = 1e9


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

    def __init__(self, count: int, path: Path | None = None) -> None:
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
        for _ in range(count):
            self.start()

    def wall(self) -> float:
        """Return the time of day."""
        return WALL_S + self.clock.seconds()

    def start(self) -> Worker:
        """Start a worker, which gets all sentences."""
        worker = Worker(self)
        self.workers.append(worker)
        return worker

    def tell_all(self, name: str, /, **body: object) -> None:
        """See `Supervisor`."""
        for worker in self.workers:
            worker.to_worker.append((name, json.loads(json.dumps(body))))

    def on(self, name: str, handler: Callable[[int, Mapping[str, Any]], Any]) -> None:
        """See `Supervisor`."""
        self.handlers[name] = handler

    def settle(self) -> None:
        """Let a second pass in all processes, and all messages arrive."""
        for worker in self.workers:
            worker.sync()
        self.deliver()
        self.keeper.sync()
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

    def __init__(self, world: World) -> None:
        self.world = world
        self.jail = Jail(POLICY)
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


def test_a_sentence_in_one_worker_holds_in_all(tmp_path: Path) -> None:
    """It reaches the supervisor, the file and the other workers in one round, and comes back to nobody."""
    world = World(3, tmp_path / "jail.sqlite")
    world.workers[1].strike(0)
    world.settle()
    assert world.jailed() == [{"192.0.2.0/32"}] * 4
    world.clock.advance(1)
    world.settle()
    assert all(worker.talk.told == [] and worker.to_worker == [] for worker in world.workers)
    world.keeper.stop()
    assert [str(one.network) for one in JailStore(tmp_path / "jail.sqlite", print).load(0, WALL_S)] == ["192.0.2.0/32"]


def test_a_ban_and_a_release_by_hand() -> None:
    """What an operator does at the supervisor reaches all workers at once."""
    world = World(2)
    world.common.jail.add(FIRST.key, 50.0, 0.0)
    world.common.spread()
    world.deliver()
    assert world.jailed() == [{"192.0.2.0/32"}] * 3
    world.common.jail.release(FIRST.key)
    world.common.spread()
    world.deliver()
    assert world.jailed() == [set()] * 3


def test_a_release_in_a_worker() -> None:
    """A release holds in all processes, whichever made it, and a new sentence afterwards counts again."""
    world = World(2)
    world.workers[0].strike(0)
    world.settle()
    world.workers[1].jail.release(FIRST.key)
    world.settle()
    assert world.jailed() == [set()] * 3
    world.workers[1].jail.add(FIRST.key, 50.0, 0.0)
    world.settle()
    assert world.jailed() == [{"192.0.2.0/32"}] * 3


def test_the_count_of_sentences_is_common() -> None:
    """A client that is sentenced by another worker the next time is jailed for twice as long."""
    world = World(2)
    world.workers[0].strike(0)
    world.settle()
    world.clock.advance(POLICY.first_s + 1)
    world.workers[1].strike(0)
    world.settle()
    sentence = world.common.jail.sentence(FIRST.key, world.clock.seconds())
    assert sentence is not None
    assert (sentence.times, sentence.until_s) == (2, 601.0 + 1200.0)


def test_the_end_of_a_sentence_is_no_release() -> None:
    """Jails forget what has ended by themselves; a worker that is late does not end a new sentence of others."""
    world = World(2)
    world.workers[0].strike(0)
    world.settle()
    world.clock.advance(2 * POLICY.first_s + 1)
    world.workers[1].strike(0)
    world.workers[0].jail.sweep(world.clock.seconds())
    world.common.sweep()
    world.settle()
    assert world.jailed() == [{"192.0.2.0/32"}] * 3


def test_a_killed_worker() -> None:
    """It takes along what it has not told yet, and nothing else; the next one knows the rest before it accepts."""
    world = World(3)
    world.workers[0].strike(0)
    world.settle()
    world.workers[0].strike(1)
    del world.workers[0]
    world.start()
    assert world.jailed() == [{"192.0.2.0/32"}] * 4
    world.settle()
    assert world.jailed() == [{"192.0.2.0/32"}] * 4


def test_a_worker_that_stops_tells_the_rest() -> None:
    """An orderly end loses nothing."""
    world = World(2)
    world.workers[0].strike(0)
    world.workers[0].keeper.stop()
    world.deliver()
    assert world.jailed() == [{"192.0.2.0/32"}] * 3


def test_the_end_waits_for_the_supervisor() -> None:
    """A worker that ends knows when its last sentences have arrived, and does not wait for one that is gone."""
    world = World(1)
    rpc, other = Rpc(), Rpc()
    sent: list[dict[str, Any]] = []
    rpc.attach(Sent(sent))  # type: ignore[arg-type]
    own = JailOfWorker(Jail(POLICY), world.keeper, rpc, world.clock.seconds, world.wall)
    done: list[object] = []
    own.arrived().addCallback(done.append)
    assert done == []
    other.on(MESSAGE, lambda body: world.handlers[MESSAGE](0, body))
    answers: list[dict[str, Any]] = []
    other.attach(Sent(answers))  # type: ignore[arg-type]
    other.received(sent[0])
    rpc.received(answers[0])
    assert done == [None]
    own.arrived().addCallback(done.append)
    rpc.lost()
    own.arrived().addCallback(done.append)
    assert done == [None] * 3


class Sent:
    """The link of an `Rpc`, which keeps what is sent as it would arrive."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self._messages = messages

    def send(self, kind: str, **fields: object) -> None:
        """Keep a message."""
        self._messages.append(json.loads(json.dumps({"type": kind, **fields})))


def test_many_at_once() -> None:
    """Thousands of sentences are told in several messages, in one round."""
    world = World(2)
    for number in range(3_000):
        world.workers[0].jail.add(address(f"10.{number // 250}.{number % 250}.1").key, 50.0, 0.0)
    world.settle()
    assert [len(found) for found in world.jailed()] == [3_000] * 3


def test_messages_that_are_not_understood() -> None:
    """They change nothing."""
    world = World(1)
    for body in (
        {},
        {"kept": 3, "released": {}},
        {"kept": [[], [1, 2, 3, 4], ["no network", 1.0, 1, 1.0], None], "released": ["nothing", 7]},
        {"kept": [["192.0.2.0/32", "1", 1, 1.0]]},
    ):
        world.handlers[MESSAGE](0, body)
        world.workers[0].talk.handlers[MESSAGE](body)
    world.settle()
    assert world.jailed() == [set()] * 2


def test_settings_apply() -> None:
    """The supervisor remembers sentences as long as the workers do, and drops in the kernel what they would."""
    world = World(1)
    world.common.configure(Settings(jail_time_s=5.0, ipv6_prefix=56), CidrSet(["192.0.2.0/24"]))
    assert world.common.jail.policy.first_s == 5.0
    world.common.configure(Settings(jail_after=None), CidrSet())
    assert world.common.jail.policy == JailPolicy()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("strike"), st.integers(0, 2), st.integers(0, 5)),
        st.tuples(st.just("release"), st.integers(-1, 2), st.integers(0, 5)),
        st.tuples(st.just("ban"), st.integers(-1, 2), st.integers(0, 5)),
        st.tuples(st.just("sync"), st.integers(-1, 2), st.just(0)),
        st.tuples(st.just("deliver"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(1, 900)),
    ),
    max_size=30,
)


@given(STEPS)
def test_all_jails_agree_in_the_end(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens in whatever order, a quiet second later all processes jail the same addresses."""
    world = World(3)
    for name, index, number in steps:
        jail = world.common.jail if index < 0 else world.workers[index].jail
        if name == "strike":
            world.workers[index].strike(number)
        elif name == "release":
            jail.release(ADDRESSES[number].key)
        elif name == "ban":
            jail.add(ADDRESSES[number].key, 300.0, world.clock.seconds())
        elif name == "sync":
            (world.keeper if index < 0 else world.workers[index].keeper).sync()
        elif name == "deliver":
            world.workers[index].deliver()
        elif name == "kill":
            world.workers[index] = Worker(world)
        else:
            world.clock.advance(number)
            for each in (world.common.jail, *(worker.jail for worker in world.workers)):
                each.sweep(world.clock.seconds())
    world.settle()
    world.settle()
    found = world.jailed()
    assert found == [found[0]] * 4
