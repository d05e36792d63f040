"""One jail for all workers: jails that talk over queues, in any order, and a worker that is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.pyry import address
from tests.support.worker_jails import ADDRESSES, POLICY, WALL_S, Worker, World

from pyryrelay.guard import CidrSet, Jail, JailPolicy, Sentence
from pyryrelay.jail.store import JailStore
from pyryrelay.mounts import Settings
from pyryrelay.workers.jails import MESSAGE, JailOfWorker
from pyryrelay.workers.rpc import Rpc

FIRST, SECOND = ADDRESSES[:2]


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


def test_who_has_passed_a_sentence() -> None:
    """The others name the worker that did; nobody is named for what an operator did."""
    world = World(3)
    world.workers[1].strike(0)
    world.common.jail.add(SECOND.key, 50.0, 0.0)
    world.settle()
    jails = [world.common.jail, *(worker.jail for worker in world.workers)]
    origins = [{entry.key: entry.origin for entry in jail.entries(0.0)} for jail in jails]
    assert [found[FIRST.key] for found in origins] == ["worker 1", "worker 1", "", "worker 1"]
    assert {found[SECOND.key] for found in origins} == {""}


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


def in_cluster(world: World) -> World:
    """Have the jails of a relay keep what they tell other relays."""
    world.common.configure(Settings(cluster=("redis://127.0.0.1",), cluster_secret_file="-"), CidrSet())
    for worker in world.workers:
        worker.jail.keep_news()
    return world


def told(world: World) -> list[list[tuple[int, bool, bool]]]:
    """Return what each worker would tell other relays: a key, whether it was released, and whether it is jailed."""
    news = [worker.jail.news() for worker in world.workers]
    return [[(each.key, each.released is not None, each.sentence is not None) for each in one] for one in news]


def test_other_relays_hear_of_an_operator_once() -> None:
    """One worker tells them of a ban, of a shorter one, and of a release."""
    world, key = in_cluster(World(3)), FIRST.key
    common = world.common
    for act, expected in (
        (lambda: common.jail.add(key, 500.0, 0.0), (key, False, True)),
        (lambda: common.jail.add(key, 50.0, 0.0), (key, True, True)),
        (lambda: common.jail.release(key), (key, True, False)),
    ):
        act()
        common.spread()
        world.settle()
        assert told(world) == [[expected], [], []]
    common.spread("192.0.2.0/32")
    world.settle()
    assert told(world) == [[(key, True, False)], [], []]
    world.settle()
    assert told(world) == [[], [], []]


def test_an_operator_is_told_of_when_a_worker_is_ready() -> None:
    """Without one, what was done waits."""
    world = World(0)
    in_cluster(world)
    world.common.jail.add(FIRST.key, 50.0, 0.0)
    world.common.spread()
    world.start()
    world.workers[0].jail.keep_news()
    world.settle()
    assert told(world) == [[(FIRST.key, False, True)]]


def test_without_a_cluster_nobody_is_told() -> None:
    """And nothing is kept for that."""
    world = World(1)
    world.common.jail.add(FIRST.key, 50.0, 0.0)
    world.common.spread("192.0.2.1/32")
    world.settle()
    assert world.common.jail.news() == world.workers[0].jail.news() == []


def test_what_the_cluster_decides_is_followed() -> None:
    """A sentence and a release that all workers hear reach the supervisor, its file and its kernel, without an echo."""
    world = in_cluster(World(3))
    for worker in world.workers:
        worker.jail.absorb([Sentence(FIRST.key, 100.0, 1)], 0.0)
    world.settle()
    assert world.jailed() == [{"192.0.2.0/32"}] * 4
    world.workers[1].jail.discard(FIRST.key)
    world.settle()
    assert world.jailed() == [set()] * 4
    world.workers[2].jail.discard(FIRST.key)
    world.settle()
    assert world.start().jail.entries(0.0) == []
    assert told(world) == [[], [], [], []]
    assert all(worker.talk.told == [] and worker.to_worker == [] for worker in world.workers)


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
            world.workers[index] = Worker(world, Jail(POLICY))
        else:
            world.clock.advance(number)
            for each in (world.common.jail, *(worker.jail for worker in world.workers)):
                each.sweep(world.clock.seconds())
    world.settle()
    world.settle()
    found = world.jailed()
    assert found == [found[0]] * 4
