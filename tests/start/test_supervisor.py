"""The supervisor of several workers as a process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.rpc import FakeStarter
from tests.support.service import Machine

from pyryrelay.handover.successor import Command
from pyryrelay.mounts import Settings
from pyryrelay.preflight.open_files import files_needed
from pyryrelay.start import process as process_module
from pyryrelay.start import supervisor as supervisor_module
from pyryrelay.start.supervisor import SupervisorService
from pyryrelay.start.twistd import Options, makeService


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the garbage collector of the tests alone."""
    for name in ("tune_gc", "tune_malloc"):
        monkeypatch.setattr(f"pyryrelay.start.process.{name}", lambda: None)


class House:
    """A supervisor of two workers in memory, and what the service manager is told."""

    def __init__(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starter, self.told, self.handlers = FakeStarter(), list[str](), dict[int, Any]()
        monkeypatch.setattr(process_module, "notify", self.told.append)
        monkeypatch.setattr(signal, "signal", self.handlers.__setitem__)
        self.open_files: list[int] = []
        monkeypatch.setattr(supervisor_module, "raise_open_files", self.open_files.append)
        monkeypatch.setattr(supervisor_module, "adopt_orphans", lambda: False)
        monkeypatch.setattr(supervisor_module, "SpawningStarter", lambda *arguments: self.starter)
        options = Options(environ={"PYRYRELAY_WORKERS": "2"}, reactor=machine)
        options.parseOptions(["--jail-file=", "--admin-listen=", "--listen=tcp:0:interface=127.0.0.1"])
        options.command = Command((), "/", {})
        service = makeService(options, machine)
        assert isinstance(service, SupervisorService)
        self.service = service
        service.startService()
        for call, arguments, named in machine.whenRunningHooks:
            call(*arguments, **named)


@pytest.fixture
def house(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A supervisor whose workers start."""
    house = House(machine, monkeypatch)
    yield house
    house.service.sockets.close()
    house.service._mesh.close()


def test_the_limit_of_open_files(house: House) -> None:
    """It is that of a worker, as descriptors on their way between workers count against it."""
    assert house.open_files == [files_needed(house.service.gate.leases.limits, Settings(workers=2))]


def test_it_is_ready_when_its_workers_are(house: House) -> None:
    """The service manager is told then."""
    assert [process.index for process in house.starter.started] == [0, 1]
    assert house.told == []
    house.starter.get_ready()
    assert house.told == ["READY=1"]


def test_a_signal_ends_all(machine: Machine, house: House) -> None:
    """The first one stops the reactor, and the second one has the workers skip the drain."""
    house.starter.get_ready()
    hurried: list[object] = []
    for process in house.starter.started:
        process.worker.on("skip_drain", hurried.append)
    house.handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert machine.stops == 1
    house.handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert len(hurried) == 2


def test_what_a_successor_is_told(house: House) -> None:
    """It must have as many workers."""
    assert house.service.workers == 2
    assert house.service.hand_over is not None
