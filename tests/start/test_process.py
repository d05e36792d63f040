"""What a process does around the relay; most of it is tested with the service, in `test_twistd`."""

from __future__ import annotations

import pytest
from tests.support.service import Machine
from twisted.internet.defer import Deferred

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
