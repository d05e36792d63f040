"""The watchdog tells who was late, and not what was at work."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from tests.chaos.lateness import watchdog
from tests.chaos.lateness.late import LEAST_S, MACHINE, REDIS, Late
from tests.chaos.lateness.watchdog import Asker, Schedule, Watchdog, schedule_of, starved_s
from tests.end_to_end.harness import until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A place where Redis would be."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        found.settimeout(20)
        yield found


def test_known_time_is_no_starvation() -> None:
    """A sum that began anew, as its process did, is nothing known."""
    assert starved_s(2.0, 0.5) == 1.5
    assert starved_s(2.0, 3.0) == 0.0
    assert starved_s(2.0, -70.0) == 2.0


@pytest.mark.skipif(schedule_of("self") is None, reason="the kernel has no schedstat")
def test_the_kernel_tells_how_long_a_process_works() -> None:
    """Some moments later; nothing is told of a process that is not there."""
    before = schedule_of(os.getpid())
    assert before is not None
    until(lambda: (schedule_of(os.getpid()) or before).worked_s > before.worked_s, "it has worked")
    assert schedule_of(4_194_305) is None  # numbers of processes end before


def _answered(asker: Asker, there: socket.socket, answer: bytes) -> None:
    assert there.recv(64) == b"PING\r\n"
    there.sendall(answer)


def test_an_answer_is_late_but_for_the_time_that_redis_worked(listener: socket.socket) -> None:
    """Or this process waited. One question is under way at a time."""
    asker = Asker(listener.getsockname())
    asker.ask(100.0, 7.0)
    asker.ask(100.2, 7.1)
    there, _ = listener.accept()
    with there:
        _answered(asker, there, b"+PONG\r\n")
        assert asker.fileno() >= 0
        assert asker.answer(101.0, 7.5) == [Late(REDIS, 100.5, 101.0)]
        assert asker.fileno() == -1
        for known_s, took_s in ((0.0, LEAST_S * 0.9), (3.0, 3.0)):
            asker.ask(200.0, 10.0)
            _answered(asker, there, b"+PONG\r\n")
            assert asker.answer(200.0 + took_s, 10.0 + known_s) == []
    asker.close()


def test_a_redis_that_ends_is_not_late(listener: socket.socket) -> None:
    """Nor one that is not there, and the next one is asked on a new connection."""
    asker = Asker(listener.getsockname())
    asker.ask(100.0, 0.0)
    there, _ = listener.accept()
    there.close()
    assert asker.answer(150.0, 0.0) == []
    assert asker.fileno() == -1
    asker.ask(150.0, 0.0)
    there, _ = listener.accept()
    with there:
        _answered(asker, there, b"-LOADING\r\n")
        assert asker.answer(190.0, 0.0) == []
    address = listener.getsockname()
    listener.close()
    nowhere = Asker(address)
    nowhere.ask(1.0, 0.0)
    assert nowhere.fileno() == -1


def test_processes_and_the_machine_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleep that is too long is the machine's, but for what this process waited; new processes begin at 0."""
    schedules: dict[int | str, Schedule] = {"self": Schedule(0.0, 1.0), 11: Schedule(0.0, 50.0), 12: Schedule(0.0, 9.0)}
    monkeypatch.setattr(watchdog, "schedule_of", schedules.get)
    dog = Watchdog([])
    dog.watch({"a": [11], "b": [12, 13]})
    assert dog.tick(10.0, 0.0) == []
    schedules |= {"self": Schedule(0.0, 1.5), 11: Schedule(0.0, 50.5), 14: Schedule(0.0, 9.0)}
    assert dog.tick(11.0, 0.75) == [Late(MACHINE, 10.75, 11.0), Late("a", 10.5, 11.0)]
    dog.watch({"a": [11], "b": [14]})
    assert dog.tick(12.0, 0.0) == []
    schedules[11] = schedules[14] = Schedule(0.0, 60.0)
    assert [late.place for late in dog.tick(13.0, 0.0)] == ["a", "b"]
