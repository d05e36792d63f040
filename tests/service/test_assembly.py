"""How the parts of a relay are connected, before anything runs."""

from __future__ import annotations

from tests.support.service import Machine

from pyryrelay.mounts import Settings
from pyryrelay.service.assembly import Assembly
from pyryrelay.service.foundation import Times
from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.rpc import Rpc


def test_nothing_runs_yet(machine: Machine) -> None:
    """The parts alone listen on nothing, and have nothing scheduled but the figures of a protocol."""
    assembly = Assembly(Settings(listen=("tcp:81",)), machine, machine.seconds, Times())
    assert not assembly.running
    assert not assembly._listeners
    assert machine.getDelayedCalls() == []


def test_one_gate_for_all_listeners(machine: Machine) -> None:
    """All listeners ask one gate, and show the same pages."""
    assembly = Assembly(Settings(listen=("tcp:81",)), machine, machine.seconds, Times())
    first, second = assembly.http_factory().context, assembly.http_factory().context
    assert first.gate is second.gate is assembly.gate
    assert first.pages is second.pages is assembly.pages


def test_protocols_share_the_services(machine: Machine) -> None:
    """Each protocol that is on is built once, under its name."""
    assembly = Assembly(Settings(listen=("tcp:81",)), machine, machine.seconds, Times())
    assert [factory.application.name for factory in assembly.factories] == ["server", "client"]
    assert len(assembly.protocols) == 1


def test_the_place_among_workers(machine: Machine) -> None:
    """Protocols are told which worker of how many this is; a process that is alone is the only one."""
    settings = Settings(listen=("tcp:81",))
    alone = Assembly(settings, machine, machine.seconds, Times())._services()
    worker = Assembly(settings, machine, machine.seconds, Times(), place=WorkerPlace(1, 2, 7, Rpc()))._services()
    assert [(each.worker_index, each.worker_count) for each in (alone, worker)] == [(0, 1), (1, 2)]
