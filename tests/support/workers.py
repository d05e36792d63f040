"""A host with a supervisor and several workers, in memory: real relays that answer over the real `Rpc`."""

from __future__ import annotations

from typing import Any

from tests.support.admin import Client
from tests.support.echo_room import EchoSettings
from tests.support.rpc import FakeProcess, FakeStarter
from tests.support.service import Connection, Machine
from twisted.internet.defer import Deferred, succeed

from pyryrelay.admin.api import ReloadOutcome, UpgradeOutcome
from pyryrelay.guard import ClientAddress, Gate
from pyryrelay.mounts import MountedSettings
from pyryrelay.observe.sampling import SAMPLE_S
from pyryrelay.service import RelayService, Times
from pyryrelay.workers.admin.assembly import Relay, WorkersAdmin
from pyryrelay.workers.admin.usage import Usage
from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.steering import steer
from pyryrelay.workers.supervisor import Supervisor

__all__ = ["OWN_BYTES", "WALL_S", "Host", "outcome"]

WALL_S = 1_800_000_000.0
OWN_BYTES = 1_000_000
PUBLIC = 8080


def outcome(deferred: Deferred[Any]) -> Any:
    """Return what a Deferred has, or its exception; None if it waits."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    return getattr(found[0], "value", found[0]) if found else None


class Worker:
    """A worker: a process of `FakeStarter`, and a relay on a machine of its own."""

    def __init__(self, process: FakeProcess, settings: MountedSettings, count: int) -> None:
        self.process = process
        self.machine = Machine()
        place = WorkerPlace(process.index, count, process.boot, process.worker)
        self.service = RelayService(settings, self.machine, self.machine.seconds, Times(), place=place)
        self.service.startService()
        self.service.serve()

    def connect(self, host: str = "192.0.2.7") -> Connection:
        """Connect a client."""
        return self.machine.connect(PUBLIC, host)


class Host:
    """See the module's text. All workers are ready."""

    def __init__(self, count: int = 2, **settings: Any) -> None:
        self.machine = Machine()
        self.settings = EchoSettings(jail_file="", **settings)
        self.starter = FakeStarter()
        self.supervisor = Supervisor(self.machine, count, self.starter)
        self.is_draining = False
        self.wrong_tokens: list[ClientAddress | None] = []
        self.reloaded: Deferred[ReloadOutcome] = succeed(ReloadOutcome(["upgrade-quota"]))
        self.upgraded: Deferred[UpgradeOutcome] = succeed(UpgradeOutcome(8, "26.12.0", 30.0))
        self.used_cpu_s = 0.0
        self.gate = Gate()
        self.spread = 0
        self.released_by_workers: list[str] = []
        relay = Relay(
            settings=lambda: self.settings,
            gate=self.gate,
            spread=self._spread,
            steer=lambda address: steer(address, count),
            reload=lambda: self.reloaded,
            upgrade=lambda: self.upgraded,
            is_draining=lambda: self.is_draining,
            wrong_token=self.wrong_tokens.append,
        )
        now = self.machine.seconds
        self.admin = WorkersAdmin(
            self.supervisor,
            relay,
            self.machine,
            now,
            lambda: WALL_S + now(),
            lambda: Usage(OWN_BYTES, self.used_cpu_s),
        )
        self.admin.listener.access.configure(None)
        self.client = Client(self.admin.site())
        self.workers: dict[int, Worker] = {}
        self.supervisor.start_all()
        for index in range(count):
            self.get_ready(index)

    def _spread(self, released: str | None) -> None:
        self.spread += 1
        self.released_by_workers += [] if released is None else [released]

    def get_ready(self, index: int) -> Worker:
        """Start the relay of the process that has an index now."""
        process: FakeProcess = self.starter.running(index)
        worker = self.workers[index] = Worker(process, self.settings, self.supervisor.count)
        self.starter.get_ready(process)
        return worker

    def pass_s(self, seconds: float = SAMPLE_S) -> None:
        """Let time pass for everybody, and take a sample."""
        for worker in self.workers.values():
            worker.machine.pump([seconds])
        self.machine.pump([seconds])
        self.admin.sample()

    def hang(self, index: int) -> list[Deferred[Any]]:
        """Have a worker answer nothing any more; return the answers that it would give."""
        waiting: list[Deferred[Any]] = []

        def never(body: object) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        for name in ("about", "sample", "status", "metrics", "health", "standing", "jail_add", "action"):
            self.workers[index].process.worker.on(name, never)
        return waiting

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        response = self.client.request("GET", path)
        assert response.status == 200, response.text
        return response.json
