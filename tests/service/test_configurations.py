"""Which configuration each worker has, and the reload of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.rpc import FakeStarter
from tests.support.service import Machine
from twisted.internet.defer import Deferred, succeed

from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.service.configurations import RELOAD_S, Configurations
from pyryrelay.workers.supervisor import Supervisor


class House:
    """A supervisor of two workers; `told` is what they are to reload, by index."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.content: bytes | None = b"grace = 1"
        self.here = ReloadOutcome(["grace"], ["listen"])
        self.answer: Any = {"changed": ["grace"], "needs_restart": [], "error": None}
        self.told: list[tuple[int, str | None]] = []
        self.starter = FakeStarter()
        self.supervisor = Supervisor(machine, 2, self.start)
        self.configurations = Configurations(self.supervisor, lambda: succeed(self.here), lambda: self.content)
        self.supervisor.on_ready.append(self.configurations.worker_ready)
        self.configurations.begin()
        self.supervisor.start_all()
        self.starter.get_ready()

    def start(self, index: int, boot: int, ended: Any) -> Any:
        self.configurations.worker_starts(index)
        process = self.starter(index, boot, ended)
        process.worker.on("reload", lambda body: self.reloaded(index, body))
        return process

    def reloaded(self, index: int, body: Mapping[str, Any]) -> Any:
        self.told.append((index, body["configuration"]))
        return self.answer

    def reload(self) -> ReloadOutcome:
        """Reload all at once."""
        outcome: ReloadOutcome = result(self.configurations.reload())
        return outcome


def result(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else None


@pytest.fixture
def house(machine: Machine) -> House:
    """Two workers that are ready."""
    return House(machine)


def test_workers_that_have_the_current_one_are_left_alone(house: House) -> None:
    """One that starts is told which one that is, and needs no reload."""
    assert house.told == []
    assert (house.configurations.first, house.configurations.current) == (b"grace = 1", b"grace = 1")


def test_all_reload_what_was_read_here(house: House) -> None:
    """There is one outcome; what changes only with a restart, the supervisor knows."""
    house.content = b"grace = 7"
    house.answer = {"changed": ["grace", "allow"], "needs_restart": ["listen"], "error": None}
    assert house.reload() == ReloadOutcome(["grace", "allow"], ["listen"])
    assert house.told == [(0, "grace = 7"), (1, "grace = 7")]
    assert (house.configurations.first, house.configurations.current) == (b"grace = 1", b"grace = 7")


def test_a_relay_without_a_file(house: House) -> None:
    """Its workers read only the lists again."""
    house.content = None
    house.reload()
    assert house.told == [(0, None), (1, None)]


def test_what_is_refused_here_reaches_no_worker(house: House) -> None:
    """The configuration of before stays the current one."""
    house.content, house.here = b"grace = x", ReloadOutcome(error="grace is no number")
    assert house.reload().error == "grace is no number"
    assert house.told == []
    assert house.configurations.current == b"grace = 1"


def test_a_worker_that_refuses_or_is_silent(house: House) -> None:
    """The outcome names the worker, whether it ends or does not answer in time."""
    house.answer = {"changed": [], "needs_restart": [], "error": "the list is gone"}
    assert house.reload().error == "worker 0: the list is gone"
    house.answer = Deferred()
    asked = house.configurations.reload()
    house.starter.running(0).end()
    house.machine.advance(RELOAD_S)
    assert result(asked).error == "worker 0: it did not answer"


def test_a_worker_that_was_starting(house: House) -> None:
    """It was told the earlier configuration, and reloads when it is ready, once."""
    house.starter.running(0).end()
    house.content = b"grace = 9"
    house.reload()
    assert house.told == [(1, "grace = 9")]
    house.starter.get_ready(house.starter.running(0))
    assert house.told == [(1, "grace = 9"), (0, "grace = 9")]
    house.configurations.worker_ready(0)
    assert len(house.told) == 2


def test_a_worker_that_cannot_reload_later(house: House) -> None:
    """That is no error here: its own log says so."""
    house.starter.running(0).end()
    house.content = b"grace = 9"
    house.reload()
    starting = house.starter.running(0)
    starting.worker.on("reload", lambda body: 1 // 0)
    house.starter.get_ready(starting)
    assert house.supervisor.is_complete


def test_at_most_one_reload_waits(house: House) -> None:
    """While another one runs, more are refused."""
    waiting = Deferred[Any]()
    house.starter.running(0).worker.on("reload", lambda body: waiting)
    first, second, third = (house.configurations.reload() for _ in range(3))
    assert (result(first), result(second)) == (None, None)
    assert "another reload is about to start" in result(third).error
    waiting.callback(house.answer)
    assert [index for index, _ in house.told].count(1) == 2
