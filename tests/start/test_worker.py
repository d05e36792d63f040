"""A worker: what its supervisor asks, and its end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.rpc import rpc_pair
from tests.support.service import Machine
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from pyryrelay.listen.inherited import Inherited
from pyryrelay.mounts import Settings
from pyryrelay.observe.worker_log import WorkerLog
from pyryrelay.start.twistd import Options
from pyryrelay.start.worker import LOST_S, WorkerService
from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.rpc import Rpc
from pyryrelay.workers.starting.greeting import Greeted, WorkerGreeting


class Place(Greeted):
    """What a worker is told, with a connection in memory."""

    def place(self) -> WorkerPlace:
        """Return the place; `rpc` is the worker's end."""
        found = super().place()
        found.rpc = RPC[0]
        return found


RPC: list[Rpc] = []


class House:
    """A worker in memory; `supervisor` is the supervisor's end of the connection."""

    def __init__(self, machine: Machine, folder: Path, **greeting: Any) -> None:
        self.machine = machine
        worker, self.supervisor = rpc_pair()
        RPC[:] = [worker]
        self.told: list[str] = []
        self.supervisor.on("ready", lambda body: self.told.append("ready"))
        self.supervisor.on("released", lambda body: self.told.append(f"released {body['protocol']}"))
        ours, theirs = socket.socketpair()
        theirs.close()
        worker.connect = lambda reactor, end: end.close()  # type: ignore[method-assign]
        config = folder / "relay.toml"
        config.write_text('admin-listen = "tcp:9090"\nadmin-token-file = ""\nmax-phones = 3\njail-file = ""\n')
        options = Options(environ={"PYRYRELAY_ACCEPT_FINDING": "clock"}, reactor=machine)
        options.given = b'max-phones = 4\njail-file = ""\n'
        options.parseOptions(["--config", str(config)])
        found = Place(ours, 77, WorkerGreeting(1, 2, 5, Inherited(), configuration=options.given, **greeting))
        self.service = WorkerService.of(options, found, machine)

    def max_phones(self) -> int | None:
        settings = self.service.settings
        assert isinstance(settings, Settings)
        return settings.max_phones


def outcome(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else None


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the garbage collector of the tests alone."""
    for name in ("tune_gc", "tune_malloc"):
        monkeypatch.setattr(f"pyryrelay.start.worker.{name}", lambda: None)


def run_hooks(machine: Machine) -> None:
    """Do what the reactor does first when it runs."""
    for call, arguments, named in machine.whenRunningHooks:
        call(*arguments, **named)


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """Signal handlers, in place of the real ones."""
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: handlers.__setitem__(-which - 1, seconds))
    return handlers


@pytest.fixture
def house(machine: Machine, tmp_path: Path, signals: dict[int, Any]) -> Iterator[House]:
    """A worker that was told which one it is."""
    house = House(machine, tmp_path)
    yield house
    house.service.supervisor.end.close()


def test_the_start(house: House) -> None:
    """It reads what the supervisor has read, opens no admin listener, and serves when it is told to."""
    assert house.max_phones() == 4
    house.service.startService()
    assert house.machine.listening == [8080]
    assert house.told == []
    run_hooks(house.machine)
    assert house.told == ["ready"]
    health = house.service.health
    seen = [health.is_accepting]
    house.supervisor.tell("serve", jail=[])
    assert [*seen, health.is_accepting] == [False, True]
    assert house.machine.history[-1] == ("resume", 8080)


def test_a_configuration_that_has_been_reloaded(machine: Machine, tmp_path: Path, signals: dict[int, Any]) -> None:
    """It starts with the first one, like the others, and reloads the last one before it is ready."""
    house = House(machine, tmp_path, reloaded=b'max-phones = 7\njail-file = ""\nlisten = ["tcp:1"]\n')
    house.service.startService()
    run_hooks(machine)
    assert house.told == ["ready"]
    assert house.max_phones() == 7
    assert machine.listening == [8080]


def test_a_reload(house: House) -> None:
    """The supervisor says what to read, and gets the outcome."""
    house.service.startService()
    found = outcome(house.supervisor.ask("reload", configuration='max-phones = 9\njail-file = ""\n'))
    assert found == {"changed": ["max-phones"], "needs_restart": [], "error": None}
    assert house.max_phones() == 9
    bad = outcome(house.supervisor.ask("reload", configuration='max-phones = "x"\n'))
    assert "max-phones" in bad["error"]


def test_moving_peers(house: House) -> None:
    """It pauses, moves its peers, and answers questions of its successor; or it goes on."""
    house.service.startService()
    house.supervisor.tell("serve", jail=[])
    asked = house.supervisor.ask("pause", kept=["tcp:8080:interface=127.0.0.1"])
    house.machine.advance(0)
    assert outcome(asked) == []
    assert house.machine.history[-1] == ("pause", 8080)
    assert outcome(house.supervisor.ask("answer", protocol="unknown", question="?")) is None
    drained = house.supervisor.ask("drain", over_s=0.0)
    house.machine.pump([0.1] * 10)
    assert drained.called
    assert house.told == ["released pyry"]
    house.supervisor.tell("resume")
    assert house.machine.history[-1] == ("resume", 8080)


def test_it_asks_what_the_process_before_holds(machine: Machine, tmp_path: Path, signals: dict[int, Any]) -> None:
    """It has asked when it says that it serves, so nothing needs to wait for longer before peers move."""
    house = House(machine, tmp_path, succeeds=True)
    heard: list[str] = []
    house.supervisor.on("predecessor", lambda body: heard.append(body["question"]))
    house.service.startService()
    house.supervisor.ask("serve", jail=[]).addCallback(lambda _: heard.append("serves"))
    house.service.supervisor.end.close()
    assert heard == ["held", "serves"]


def test_the_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when it is told to, once, and the drain can be cut short."""
    hurried: list[None] = []
    monkeypatch.setattr(house.service, "skip_drain", lambda: hurried.append(None))
    house.service.startService()
    house.supervisor.tell("stop")
    house.supervisor.tell("stop")
    house.supervisor.tell("skip_drain")
    assert (house.machine.stops, len(hurried)) == (1, 1)


def test_a_signal_for_this_process_alone(house: House, signals: dict[int, Any]) -> None:
    """SIGTERM ends it in an orderly way; its supervisor starts another one."""
    house.service.startService()
    signals[signal.SIGTERM](signal.SIGTERM, None)
    assert house.machine.stops == 1


def test_a_supervisor_that_is_gone(house: House, signals: dict[int, Any]) -> None:
    """It ends at once, and the system ends it if that takes too long."""
    house.service.startService()
    house.machine.running = True
    house.supervisor.close()
    assert house.machine.stops == 1
    assert signals[-signal.ITIMER_REAL - 1] == LOST_S
    assert signals[signal.SIGALRM] == signal.SIG_DFL


class Application(MultiService, Componentized):
    """An application, as twistd makes it."""

    def __init__(self) -> None:
        MultiService.__init__(self)
        Componentized.__init__(self)


def test_its_log(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It logs to its standard output, which the supervisor reads."""
    monkeypatch.setattr("pyryrelay.start.worker.PipeWriter", lambda descriptor, call_later: house)
    monkeypatch.setattr(house, "write", lambda line: True, raising=False)
    application: Any = Application()
    house.service.setServiceParent(application)
    assert isinstance(application.getComponent(ILogObserver), WorkerLog)
