"""How the parts of a relay are connected, before anything runs."""

from __future__ import annotations

import pytest
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


def test_workers_connect_to_what_they_share(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is alone starts a child of its own; a worker connects to that of its supervisor."""
    asked: list[tuple[object, ...]] = []
    module = "pyryrelay.service.assembly"
    monkeypatch.setattr(f"{module}.start_child", lambda *arguments: asked.append(("start", arguments[1])))
    monkeypatch.setattr(f"{module}.connect", lambda *arguments: asked.append(("connect", arguments[1])))
    settings = Settings(listen=("tcp:81",), nostr=True)
    alone = Assembly(settings, machine, machine.seconds, Times())
    alone._services().start_shared("nostr-writer", print, print)
    place = WorkerPlace(1, 2, 7, Rpc(), children={"nostr-writer": "/folder/writer"})
    worker = Assembly(settings, machine, machine.seconds, Times(), place=place)
    services = worker._services()
    services.start_shared("nostr-writer", print, print)
    assert asked == [
        ("start", ("-m", "pyryrelay.nostr.workers.child", "writer")),
        ("connect", "/folder/writer"),
    ]
    assert (services.worker_index, services.worker_count) == (1, 2)
