"""The supervisor's view of its workers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.capture import captured
from tests.support.rpc import FakeStarter
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pyryrelay.workers.rpc import RpcError
from pyryrelay.workers.supervisor import BACK_OFF_S, END_MISSED, MISSED, READY_S, TELL_S, State, Supervisor


class House:
    """A supervisor of workers in memory."""

    def __init__(self, count: int = 3) -> None:
        self.clock = Clock()
        self.starter = FakeStarter()
        self.supervisor = Supervisor(self.clock, count, self.starter)
        self.ready: list[int] = []
        self.lost: list[tuple[int, int]] = []
        self.failed: list[tuple[int, str]] = []
        self.supervisor.on_ready.append(self.ready.append)
        self.supervisor.on_lost.append(lambda index, boot: self.lost.append((index, boot)))
        self.supervisor.on_failed.append(lambda index, outcome: self.failed.append((index, outcome)))

    def started(self) -> House:
        self.supervisor.start_all()
        return self

    def complete(self) -> House:
        self.started()
        self.starter.get_ready()
        return self


def outcome(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return getattr(found[0], "value", found[0]) if found else None


def test_the_start() -> None:
    """All workers are started, each with its index and a number of its own; one after another gets ready."""
    house = House().started()
    assert [(process.index, process.boot) for process in house.starter.started] == [(0, 1), (1, 2), (2, 3)]
    assert not house.supervisor.indexes
    house.starter.get_ready(house.starter.started[1])
    assert house.supervisor.indexes == [1]
    house.starter.get_ready()
    assert house.ready == [1, 0, 2]
    assert house.supervisor.is_complete
    assert house.supervisor.count == 3


def test_questions_to_one_worker() -> None:
    """A worker that is not ready cannot be asked."""
    house = House().started()
    assert str(outcome(house.supervisor.ask(0, "x"))) == "x: worker 0 is not ready"
    house.starter.get_ready()
    house.starter.running(1).worker.on("sum", lambda body: body["a"] + body["b"])
    assert outcome(house.supervisor.ask(1, "sum", a=1, b=2)) == 3


def test_questions_to_all_workers() -> None:
    """Those that are down, fail, or do not answer in time are left out."""
    house = House(4).started()
    house.starter.get_ready(*house.starter.started[:3])
    house.starter.running(0).worker.on("x", lambda body: "zero")
    house.starter.running(1).worker.on("x", lambda body: Deferred())
    asked = house.supervisor.ask_all("x")
    assert not asked.called
    house.clock.advance(5)
    assert outcome(asked) == {0: "zero"}


def test_messages() -> None:
    """A message goes to one worker, or to all that are ready."""
    house = House(2).complete()
    told: list[tuple[int, int]] = []
    for index in range(2):
        house.starter.running(index).worker.on("note", lambda body, index=index: told.append((index, body["n"])))
    house.supervisor.tell(1, "note", n=1)
    house.supervisor.tell_all("note", n=2)
    assert told == [(1, 1), (0, 2), (1, 2)]


def test_handlers_for_all_workers() -> None:
    """A handler is told which worker it is, also of workers that are started later."""
    house = House(2).complete()
    house.supervisor.on("hello", lambda index, body: [index, body["n"]])
    house.starter.running(0).end()
    for index in range(2):
        assert outcome(house.starter.running(index).worker.ask("hello", n=9)) == [index, 9]


def test_a_dead_worker_is_replaced_at_once() -> None:
    """It gets the same index and another number; the others notice nothing."""
    house = House().complete()
    house.starter.running(1).end("signal 9")
    assert house.supervisor.indexes == [0, 2]
    assert house.lost == [(1, 2)]
    assert (house.starter.started[3].index, house.starter.started[3].boot) == (1, 4)
    house.starter.get_ready(house.starter.started[3])
    assert house.ready == [0, 1, 2, 1]
    assert house.supervisor.restarts == 1
    assert house.failed == []


def test_what_was_asked_of_a_dead_worker_fails() -> None:
    """The question does not wait for the next one."""
    house = House().complete()
    house.starter.running(0).worker.on("wait", lambda body: Deferred())
    asked = house.supervisor.ask(0, "wait")
    house.starter.running(0).end()
    assert isinstance(outcome(asked), RpcError)


def test_workers_that_never_get_ready_are_started_more_and_more_rarely() -> None:
    """The pause grows to a few seconds; once one was ready, the next end is answered at once again."""
    house = House(1).started()
    for delay_s in (*BACK_OFF_S[1:], BACK_OFF_S[-1]):
        count = len(house.starter.started)
        house.starter.running(0).end("exit code 1")
        assert house.supervisor.status()[0].state is State.DOWN
        house.clock.advance(delay_s - 0.01)
        assert len(house.starter.started) == count
        house.clock.advance(0.02)
        assert len(house.starter.started) == count + 1
    assert house.failed == [(0, "exit code 1")] * len(BACK_OFF_S)
    house.starter.get_ready()
    house.starter.running(0).end()
    assert house.supervisor.status()[0].state is State.STARTING


def test_failures_that_repeat_are_told_rarely() -> None:
    """While no worker can be started, there is one line for all of them; one that was ready has a line in any case."""
    house = House(3).started()
    with captured() as log:
        for _ in range(3):
            for index in range(3):
                house.starter.running(index).end("no room")
            house.clock.advance(2)
        assert len(log.texts) == 1
        house.clock.advance(TELL_S)
        house.starter.running(1).end("no room")
        house.starter.running(2).end("another")
        house.starter.get_ready()
        house.starter.running(0).end("another")
    assert log.texts == [
        "worker 0 ended: no room (process 1000); another one starts in 0.25 s (0 more left out)",
        "worker 1 ended: no room (process 1010); another one starts in 2.0 s (8 more left out)",
        "worker 2 ended: another (process 1011); another one starts in 2.0 s (0 more left out)",
        "worker 0 ended: another (process 1009); another one starts in 0.0 s (0 more left out)",
    ]


def test_a_worker_that_does_not_get_ready_is_killed() -> None:
    """Another one is started in its place."""
    house = House(1).started()
    house.clock.advance(READY_S + 0.1)
    assert house.starter.started[0].is_over
    assert house.failed == [(0, "signal 9")]


def test_the_end() -> None:
    """After `stop` no worker is replaced, and those that wait for their start are not started."""
    house = House(3).complete()
    house.starter.running(2).end()
    house.starter.running(2).end()
    house.supervisor.stop()
    house.clock.advance(60)
    assert len(house.starter.started) == 4
    house.supervisor.kill_all()
    assert house.supervisor.is_empty
    assert not house.clock.getDelayedCalls()


def test_the_status() -> None:
    """Operators see number, boot, state and age of each worker."""
    house = House(2)
    house.clock.advance(5)
    house.started()
    house.starter.get_ready(house.starter.started[0])
    first, second = house.supervisor.status()
    assert (first.index, first.pid, first.boot, first.state, first.started_at) == (0, 1000, 1, State.READY, 5.0)
    assert second.state is State.STARTING


@pytest.mark.parametrize("is_twice", [False, True])
def test_ready_counts_once(is_twice: bool) -> None:
    """A worker that says it again changes nothing."""
    house = House(1).complete()
    if is_twice:
        house.starter.get_ready()
    assert house.ready == [0]


def test_a_worker_that_hangs_is_replaced() -> None:
    """One that leaves a question unanswered for long is killed; the others answer, whatever they say."""
    house = House().complete()
    silent = house.starter.running(1)
    silent.worker.on("alive", lambda body: Deferred())
    for _ in range(MISSED):
        house.supervisor.look_after()
    assert not silent.is_over
    house.supervisor.look_after()
    assert silent.is_over
    assert house.lost == [(1, 2)]
    assert house.starter.running(1).boot == 4
    house.starter.get_ready()
    for _ in range(3 * MISSED):
        house.supervisor.look_after()
    assert house.lost == [(1, 2)]


def test_a_worker_that_answers_late_goes_on() -> None:
    """An answer counts, however late it comes."""
    house = House().complete()
    answer = Deferred[object]()
    house.starter.running(0).worker.on("alive", lambda body: answer)
    for _ in range(MISSED):
        house.supervisor.look_after()
    answer.callback("yes")
    for _ in range(3 * MISSED):
        house.supervisor.look_after()
    assert house.lost == []


def test_workers_that_hang_while_they_end() -> None:
    """They are killed sooner than others; nothing takes their place, and one that starts is not asked."""
    house = House().started()
    house.starter.get_ready(*house.starter.started[:2])
    silent, other = house.starter.running(0), house.starter.running(1)
    silent.worker.on("alive", lambda body: Deferred())
    house.supervisor.stop()
    house.supervisor.end_all()
    for _ in range(END_MISSED):
        house.supervisor.look_after()
    assert not silent.is_over
    house.supervisor.look_after()
    assert (silent.is_over, other.is_over) == (True, False)
    assert len(house.starter.started) == 3


def test_workers_that_hang_while_another_process_takes_over() -> None:
    """They are killed as at other times, so that their peers connect to that process."""
    house = House(1).complete()
    house.starter.running(0).worker.on("alive", lambda body: Deferred())
    house.supervisor.stop()
    for _ in range(MISSED + 1):
        house.supervisor.look_after()
    assert house.lost == [(0, 1)]
    assert len(house.starter.started) == 1


def test_workers_that_are_absent() -> None:
    """Those that are not ready, and those that have not answered for a while."""
    house = House(3)
    assert house.supervisor.absent == [0, 1, 2]
    house.complete()
    assert house.supervisor.absent == []
    waiting = Deferred[None]()
    house.starter.running(0).worker.on("alive", lambda body: waiting)
    house.starter.running(1).end("signal 9")
    house.supervisor.look_after()
    assert house.supervisor.absent == [1]
    house.supervisor.look_after()
    assert house.supervisor.absent == [0, 1]
    waiting.callback(None)
    assert house.supervisor.absent == [1]
