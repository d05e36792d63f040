"""What a supervisor gives to its successor, and how the workers of both talk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from tests.support.rpc import FakeStarter, rpc_pair
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pyryrelay.handover.predecessor import Predecessor
from pyryrelay.jail.keeper import JailKeeper
from pyryrelay.listen.inherited import Inherited
from pyryrelay.listen.listeners import Listeners
from pyryrelay.observe.health import Health
from pyryrelay.workers.supervisor import Supervisor
from pyryrelay.workers.transfer import PredecessorOfWorker, WorkersTransfer, relay_questions


class Parts:
    """Sockets and a jail that note what they are told."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def shared(self) -> Inherited:
        return Inherited()

    def close_others(self, kept: frozenset[str]) -> Deferred[None]:
        self.done.append(("close others", set(kept)))
        return succeed(None)

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")

    def leave(self) -> Deferred[list[object]]:
        self.done.append("leave")
        return succeed([["192.0.2.7/32", 1.0, 1, 0.5]])

    def take_back(self) -> None:
        self.done.append("take back")


class House:
    """A supervisor of two workers that are ready, and its transfer."""

    def __init__(self) -> None:
        self.clock, self.starter, self.parts = Clock(), FakeStarter(), Parts()
        self.workers = Supervisor(self.clock, 2, self.starter)
        self.health = Health(lambda: 0.0, 0.0)
        keeper = cast(JailKeeper, self.parts)
        self.transfer = WorkersTransfer(
            self.workers, self.parts, cast(Listeners, self.parts), keeper, self.health, ["pyry", "nostr"]
        )
        self.workers.start_all()
        self.starter.get_ready()
        self.told: list[tuple[int, str, Mapping[str, Any]]] = []
        self.drained = [Deferred[None](), Deferred[None]()]
        for index in range(2):
            worker = self.starter.running(index).worker
            for name in ("pause", "resume"):
                worker.on(name, lambda body, index=index, name=name: self.told.append((index, name, body)))
            worker.on("drain", lambda body, index=index: self.drained[index])
            worker.on("answer", lambda body, index=index: f"{index} {body['protocol']} {body['question']}")


def outcome(deferred: Any) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else None


def test_giving() -> None:
    """All workers stop accepting before the jail is left; a worker that ends then is not replaced."""
    house = House()
    rows = outcome(house.transfer.give(frozenset({"tcp:1"})))
    assert rows == [["192.0.2.7/32", 1.0, 1, 0.5]]
    assert house.told == [(0, "pause", {"kept": ["tcp:1"]}), (1, "pause", {"kept": ["tcp:1"]})]
    assert house.parts.done == ["pause", *[("close others", {"tcp:1"})] * 2, "leave"]
    assert house.health.draining is True
    house.starter.running(0).end()
    assert len(house.starter.started) == 2


def test_taking_back() -> None:
    """All workers accept again, and what ended meanwhile is started again."""
    house = House()
    outcome(house.transfer.give(frozenset()))
    house.starter.running(1).end()
    house.transfer.take_back()
    assert house.told[-1] == (0, "resume", {})
    assert house.parts.done[-2:] == ["take back", "resume"]
    assert len(house.starter.started) == 3
    found = house.health.draining, house.transfer.is_given
    assert found == (False, False)


def test_moving() -> None:
    """Each protocol of each worker is released once, when its worker says so, or has moved all, or has ended."""
    house = House()
    released: list[str] = []
    outcome(house.transfer.give(frozenset()))
    moved = house.transfer.move_peers(5.0, released.append)
    house.starter.running(0).worker.tell("released", protocol="pyry")
    house.starter.running(0).worker.tell("released", protocol="pyry")
    assert released == ["0/pyry"]
    house.starter.running(1).end("signal 9")
    assert sorted(released) == ["0/pyry", "1/nostr", "1/pyry"]
    seen = [moved.called]
    house.drained[0].callback(None)
    assert [*seen, moved.called] == [False, True]
    assert sorted(released) == ["0/nostr", "0/pyry", "1/nostr", "1/pyry"]


def test_questions_reach_the_worker_with_the_same_index() -> None:
    """The name on the link between the supervisors has the index; another name has no answer."""
    house = House()
    assert outcome(house.transfer.answer("1/pyry", b"there?")) == b"1 pyry there?"
    for name in ("2/pyry", "pyry", "x/pyry"):
        assert house.transfer.answer(name, b"there?") is None


def test_a_question_to_a_worker_that_ends() -> None:
    """There is no answer then."""
    house = House()
    house.starter.running(1).worker.on("answer", lambda body: Deferred())
    asked = house.transfer.answer("1/pyry", b"there?")
    house.starter.running(1).end()
    assert asked is not None
    assert asked.called
    assert outcome(asked) is None


class OldSupervisor:
    """The process before this one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.released = Deferred[None]()

    def ask(self, protocol: str, question: bytes) -> Deferred[bytes | None]:
        self.asked.append((protocol, question))
        return succeed(b"yes" if question == b"there?" else None)

    def when_released(self, protocol: str) -> Deferred[None]:
        self.asked.append((protocol, b""))
        return self.released


def test_workers_ask_through_their_supervisor() -> None:
    """A protocol of a worker knows nothing of that."""
    house, old = House(), OldSupervisor()
    relay_questions(house.workers, cast(Predecessor, old))
    protocol = PredecessorOfWorker(house.starter.running(1).worker).of("pyry")
    assert outcome(protocol.ask(b"there?")) == b"yes"
    assert outcome(protocol.ask(b"else")) is None
    waiting = protocol.when_released()
    assert old.asked == [("1/pyry", b"there?"), ("1/pyry", b"else"), ("1/pyry", b"")]
    assert not waiting.called
    old.released.callback(None)
    assert waiting.called


def test_a_supervisor_that_is_gone_answers_nothing() -> None:
    """A worker ends soon then; its protocols need not know."""
    one, other = rpc_pair()
    other.close()
    protocol = PredecessorOfWorker(one).of("pyry")
    assert outcome(protocol.ask(b"there?")) is None
    assert protocol.when_released().called
