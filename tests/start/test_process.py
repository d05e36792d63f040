"""What a process does around the relay; most of it is tested with the service, in `test_twistd`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.support.service import Machine
from twisted.internet.defer import Deferred

from pyryrelay.listen.inherited import Inherited
from pyryrelay.service import RelayService
from pyryrelay.start import process as process_module
from pyryrelay.start.twistd import Options, TwistdService, makeService


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the garbage collector of the tests alone."""
    for name in ("tune_gc", "tune_malloc"):
        monkeypatch.setattr(f"pyryrelay.start.process.{name}", lambda: None)


def test_readiness_may_take_some_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service manager is told when `get_ready` has fired, and at the end."""
    told: list[str] = []
    ready = Deferred[None]()
    monkeypatch.setattr(process_module, "notify", told.append)
    monkeypatch.setattr(process_module, "handle_signals", lambda *arguments: None)
    monkeypatch.setattr(TwistdService, "get_ready", lambda service: ready)
    options = Options(environ={}, reactor=machine)
    options.parseOptions(["--jail-file=", "--admin-listen="])
    service = makeService(options, machine)
    assert isinstance(service, TwistdService)
    service.startService()
    for call, arguments, named in machine.whenRunningHooks:
        call(*arguments, **named)
    assert told == []
    ready.callback(None)
    assert told == ["READY=1"]
    service.stopService()
    assert told == ["READY=1", "STOPPING=1"]


class Before:
    """The process before this one, and what it was told."""

    version, pid = "1.0", 77

    def __init__(self) -> None:
        self.told: list[str] = []
        self.sockets = Inherited()

    def connect(self, reactor: object, taken: Callable[..., None], cancelled: Callable[[], None]) -> None:
        """Keep what it calls."""
        self.take = taken

    def ready(self) -> None:
        """Note it."""
        self.told.append("ready")

    def serving(self) -> None:
        """Note it."""
        self.told.append("serving")


def test_the_predecessor_moves_nobody_before_all_have_begun(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told that this process serves when all parts of it do."""
    began, before = Deferred[None](), Before()
    monkeypatch.setattr(process_module, "notify", lambda text: None)
    monkeypatch.setattr(process_module, "handle_signals", lambda *arguments: None)
    monkeypatch.setattr(RelayService, "serve", lambda service, sentences: began)
    options = Options(environ={}, reactor=machine)
    options.parseOptions(["--jail-file=", "--admin-listen="])
    options.predecessor = cast(Any, before)
    service = makeService(options, machine)
    service.startService()
    for call, arguments, named in machine.whenRunningHooks:
        call(*arguments, **named)
    before.take({"jail": []})
    assert before.told == ["ready"]
    began.callback(None)
    assert before.told == ["ready", "serving"]
