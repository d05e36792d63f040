"""What a relay gives up and takes back, with the whole service on a machine in memory."""

from __future__ import annotations

from typing import Any

from tests.support.echo_room import EchoRoom, EchoSettings
from tests.support.pyry import address
from tests.support.service import Machine, body, status
from twisted.internet.defer import Deferred

from pyryrelay.service import RelayService, Times

PUBLIC = 8080


class Running:
    """A relay with the echo room, which is to hand over."""

    def __init__(self) -> None:
        self.machine = Machine()
        settings = EchoSettings(jail_file="", kernel_drop=False)
        self.service = RelayService(settings, self.machine, self.machine.seconds, Times())
        self.paused: list[str] = []
        for listeners in self.service.transfer.listeners:
            listeners.pause = lambda: self.paused.append("pause")  # type: ignore[method-assign]
            listeners.resume = lambda: self.paused.append("resume")  # type: ignore[method-assign]
        self.service.startService()
        (self.room,) = [protocol for protocol in self.service.protocols if isinstance(protocol, EchoRoom)]

    def give(self, kept: frozenset[str]) -> list[Any]:
        found: list[Any] = []
        self.service.transfer.give(kept).addCallback(found.append)
        (rows,) = found
        return rows  # type: ignore[no-any-return]


def test_giving() -> None:
    """It stops accepting, closes what the successor has not kept, tells health checks, and returns the jail."""
    running = Running()
    running.service.gate.jail.add(address("192.0.2.9").key, 60.0, running.machine.seconds())
    page = running.machine.connect(PUBLIC)
    ready = running.machine.connect(PUBLIC)
    assert status(ready.ask("/readyz")) == 200
    rows = running.give(frozenset({"tcp:8080:interface=127.0.0.1"}))
    assert [row[0] for row in rows] == ["192.0.2.9/32"]
    assert running.paused == ["pause", "pause", "pause"]
    assert running.machine.listening == [PUBLIC]
    assert status(answer := page.ask("/readyz")) == 503
    assert body(answer)["status"] == "draining"


def test_moving_and_taking_back() -> None:
    """Protocols move their peers; the connections that were accepted before are waited for; then it goes back."""
    running = Running()
    running.give(frozenset({"tcp:8080:interface=127.0.0.1", "tcp:9090:interface=127.0.0.1"}))
    early = running.machine.connect(PUBLIC)
    running.room.drained = Deferred()
    done: list[object] = []
    released: list[str] = []
    running.service.transfer.move_peers(3.0, released.append).addCallback(done.append)
    assert vars(running.room)["handed_over_s"] == 3.0
    assert released == ["pyry"]
    running.room.drained.callback(None)
    assert released == ["pyry", "echo"]
    running.machine.pump([0.1] * 10)
    assert done == []
    early.ask("/healthz")
    running.machine.pump([0.1] * 5)
    assert len(done) == 1
    running.service.transfer.take_back()
    assert vars(running.room)["handed_over_s"] is None
    assert not running.service.transfer.is_given
    assert running.paused[-2:] == ["resume", "resume"]
    assert status(running.machine.connect(PUBLIC).ask("/readyz")) == 200
