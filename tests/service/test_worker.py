"""What a relay is to the other workers of its host."""

from __future__ import annotations

import socket
from typing import cast

import pytest
from tests.support.service import Machine
from tests.support.two_workers import mesh_ends

from pyryrelay.mounts import Settings
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.service import worker as module
from pyryrelay.service.worker import WorkerPart
from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.rpc import Rpc


def part(machine: Machine, place: WorkerPlace | None = None) -> WorkerPart:
    """Return the part of a relay with two workers."""
    settings = Settings(listen=("tcp:81",), nostr=True, workers=2)
    return WorkerPart(place, lambda: settings, machine, TimerWheel(machine, machine.seconds), machine.seconds)


def test_without_other_workers_it_is_nothing(machine: Machine) -> None:
    """No connection leaves this process, and there is nothing to be seen."""
    sock = cast("socket.socket", None)
    for alone in (part(machine), part(machine, WorkerPlace(1, 2, 7, Rpc()))):
        alone.start()
        assert (alone.placement, alone.splices, alone.collectors()) == (None, 0, [])
        assert not any(alone.is_passed("tcp:81", sock, (f"192.0.{n}.7", 50_000)) for n in range(50))
        alone.stop()


def test_a_worker_passes_on_what_is_not_its_own(machine: Machine) -> None:
    """Of the connections that it accepts, those of some addresses belong to the other one, which gets them."""
    first, second = mesh_ends(2)
    one, other = (
        part(machine, WorkerPlace(index, 2, 7, Rpc(), mesh=ends)) for index, ends in enumerate((first, second))
    )
    ours, theirs = socket.socketpair()
    passed = [[each.is_passed("tcp:81", theirs, (f"192.0.{n}.7", 50_000)) for each in (one, other)] for n in range(20)]
    assert all(by_one is not by_other for by_one, by_other in passed)
    assert {by_one for by_one, _ in passed} == {False, True}
    for ends in (first, second):
        ends.discard()
        for end in (ends.receiving, *ends.sending):
            end.close()
    ours.close()
    theirs.close()


def test_workers_connect_to_what_they_share(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is alone starts a child of its own; a worker connects to that of its supervisor."""
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(module, "start_child", lambda *arguments: asked.append(("start", arguments[1])))
    monkeypatch.setattr(module, "connect", lambda *arguments: asked.append(("connect", arguments[1])))
    part(machine).start_shared("nostr-writer", print, print)
    place = WorkerPlace(1, 2, 7, Rpc(), children={"nostr-writer": "/folder/writer"})
    part(machine, place).start_shared("nostr-writer", print, print)
    assert asked == [
        ("start", ("-m", "pyryrelay.nostr.workers.child", "writer")),
        ("connect", "/folder/writer"),
    ]
