"""Workers hand connections over to each other: two relays in one process, with the sockets between workers."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any, cast

import pytest
from tests.support.scrape import samples_of
from tests.support.service import Connection, Machine, status
from tests.support.two_workers import mesh_ends
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from pyryrelay.mounts import Settings
from pyryrelay.observe.metrics import exposition
from pyryrelay.service import RelayService, Times
from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.rpc import Rpc
from pyryrelay.workers.steering import owner_of

PUBLIC = 8080
SERVER_IDS = [next(f"id-{n}" for n in range(100) if owner_of(f"id-{n}", 2) == index) for index in (0, 1)]


class Workers:
    """Two workers, each with its own machine."""

    def __init__(self) -> None:
        self.ends = mesh_ends(2)
        self.machines = [Machine(), Machine()]
        self.services = [self._service(index) for index in (0, 1)]
        for service in self.services:
            service.startService()

    def _service(self, index: int) -> RelayService:
        place = WorkerPlace(index, 2, 100 + index, Rpc(), mesh=self.ends[index])
        machine = self.machines[index]
        return RelayService(Settings(), machine, machine.seconds, Times(drain_s=10.0), place=place)

    def tell(self, to: int, name: str, **body: object) -> None:
        """Tell a worker something, as the supervisor does."""
        place = self.services[to].place
        assert place is not None
        place.rpc.received({"type": "tell", "name": name, "body": body})

    def connect(self, index: int, server_id: str, path: str) -> tuple[Connection, bytes]:
        """Connect a peer to a worker, and have everything done that follows; return it, and its answer."""
        connection = self.machines[index].connect(PUBLIC)
        answer = connection.upgrade(path, server_id)
        self.turn()
        return connection, answer + connection.received()

    def turn(self, turns: int = 8) -> None:
        """Have both reactors do what there is to do."""
        for _ in range(turns):
            for machine in cast("list[Any]", self.machines):
                machine.advance(0)
                readers = [reader for reader in machine.getReaders() if reader.fileno() >= 0]
                for reader in select.select(readers, (), (), 0)[0]:
                    reason = reader.doRead()
                    if reason is not None:
                        machine.removeReader(reader)
                        reader.connectionLost(Failure(reason))
                for writer in list(machine.writers):
                    writer.doWrite()

    def close(self) -> None:
        """Close the sockets between them, and those that were handed over."""
        for machine in cast("list[Any]", self.machines):
            for reader in machine.getReaders():
                reader.connectionLost(Failure(ConnectionDone()))
        for ends in self.ends:
            for sock in (ends.receiving, *ends.sending):
                sock.close()


@pytest.fixture
def workers(machine: Machine) -> Iterator[Workers]:
    """Two workers that serve; ``machine`` prepares the surroundings."""
    workers = Workers()
    yield workers
    workers.close()


def handed_over(service: RelayService) -> float | None:
    """Return how many connections a worker has handed over, as `/metrics` shows it."""
    samples = samples_of(exposition(service.worker.collectors())().decode())
    return samples["pyryrelay_worker_handovers_total", (("outcome", "sent"),)]


def serve(workers: Workers) -> None:
    """Have both accept connections."""
    for service in workers.services:
        service.serve()


def test_a_phone_meets_its_binary_wherever_both_arrive(workers: Workers) -> None:
    """Each server-id is served by one worker, which the other one gives its connections to."""
    serve(workers)
    for owner, server_id in enumerate(SERVER_IDS):
        _, binary = workers.connect(0, server_id, "/v1/server")
        _, phone = workers.connect(1, server_id, "/v1/client")
        assert (status(binary), status(phone)) == (101, 101)
        assert [list(service._by_name["pyry"].held_keys()) for service in workers.services][owner] == [server_id]
    leases = [service.gate.leases.connections for service in workers.services]
    assert leases == [2, 2]
    assert [handed_over(service) for service in workers.services] == [1, 1]


def test_the_supervisor_tells_that_a_worker_has_ended(workers: Workers) -> None:
    """Its leases are released."""
    serve(workers)
    workers.connect(0, SERVER_IDS[1], "/v1/server")
    assert workers.services[0].gate.leases.connections == 1
    workers.tell(0, "worker_lost", index=1, boot=101)
    assert workers.services[0].gate.leases.connections == 0


def test_nothing_is_received_before_it_serves(workers: Workers) -> None:
    """What other workers hand over waits."""
    workers.services[0].serve()
    binary, answer = workers.connect(0, SERVER_IDS[1], "/v1/server")
    assert answer == b""
    workers.services[1].serve()
    workers.turn()
    assert status(binary.received()) == 101


def test_the_end_of_a_worker(workers: Workers) -> None:
    """The connections whose bytes it passes on are waited for, and then cut off."""
    serve(workers)
    binary, answer = workers.connect(0, SERVER_IDS[1], "/v1/server")
    assert status(answer) == 101
    done: list[Any] = []
    stopping = workers.services[0].stopService()
    assert isinstance(stopping, Deferred)
    stopping.addBoth(done.append)
    workers.turn()
    assert (len(done), binary.lost) == (0, False)
    for _ in range(400):
        workers.machines[0].advance(0.05)
    assert len(done) == 1
    workers.turn()
    assert binary.transport.lost
    assert not any(factory.open for factory in workers.services[1].factories)
