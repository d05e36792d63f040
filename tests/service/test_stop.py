"""The end: stop listening, close every connection, wait for a bounded time, abort the rest, leave nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.capture import captured
from tests.support.service import Connection, Machine, body, close_frame, status
from twisted.internet.defer import Deferred, succeed

from pyryrelay.mounts import Settings
from pyryrelay.service import RelayService, Times, build

PUBLIC, ADMIN = 8080, 9090
GOING_AWAY = close_frame(1001, "shutting down")


@pytest.fixture
def service(machine: Machine) -> RelayService:
    """A running relay whose drain is shorter than the close timeout of its peers."""
    service = build(Settings(), machine, machine.seconds, Times(drain_s=10.0, close_timeout_s=60.0))
    service.startService()
    return service


@pytest.fixture
def binary(machine: Machine, service: RelayService) -> Connection:
    """A connected binary."""
    return upgraded(machine, "192.0.2.1", "/v1/server")


@pytest.fixture
def phone(machine: Machine, binary: Connection) -> Connection:
    """A phone of that binary."""
    return upgraded(machine, "192.0.2.2", "/v1/client")


def upgraded(machine: Machine, host: str, path: str) -> Connection:
    """Return a connection that the relay has upgraded."""
    connection = machine.connect(PUBLIC, host)
    assert status(connection.upgrade(path)) == 101
    return connection


def stop(service: RelayService) -> list[Any]:
    """Stop the service; the returned list has one entry once that is done."""
    done: list[Any] = []
    stopping = service.stopService()
    assert isinstance(stopping, Deferred)
    stopping.addBoth(done.append)
    return done


def pump(machine: Machine, seconds: float) -> None:
    """Let time pass in small steps."""
    machine.pump([0.05] * round(seconds / 0.05))


def test_a_stop_without_connections(machine: Machine, service: RelayService) -> None:
    """Without connections the stop is immediate, and no listener, loop or delayed call is left."""
    done = stop(service)
    assert done == [None]
    assert machine.listening == []
    assert machine.getDelayedCalls() == []
    assert not service.running


def test_listeners_go_first(machine: Machine, service: RelayService, binary: Connection) -> None:
    """Public listeners close before any connection is closed, and the admin listener closes last."""
    del machine.history[:]
    done = stop(service)
    assert machine.history == [("stop listening", PUBLIC), ("write", "192.0.2.1")]
    assert machine.listening == [ADMIN]
    binary.send_close(1001)
    pump(machine, 1)
    assert done == [None]
    assert machine.history[-1] == ("stop listening", ADMIN)


def test_every_connection_is_closed_with_1001(
    machine: Machine, service: RelayService, binary: Connection, phone: Connection
) -> None:
    """Every connection is closed with 1001 and the reason, and the stop ends once all have answered."""
    done = stop(service)
    assert binary.received() == phone.received() == GOING_AWAY
    pump(machine, 1)
    assert done == []
    binary.send_close(1001)
    phone.send_close(1001)
    pump(machine, 1)
    assert done == [None]
    assert binary.lost
    assert phone.lost
    pump(machine, 1)
    assert machine.getDelayedCalls() == []


def test_health_says_draining(machine: Machine, service: RelayService, binary: Connection) -> None:
    """While draining, the health page says so on the admin listener and on connections that were open before."""
    early = machine.connect(PUBLIC)
    done = stop(service)
    assert body(early.ask("/healthz"))["status"] == "draining"
    answer = machine.connect(ADMIN).ask("/healthz", Connection="close")
    assert status(answer) == 503
    assert done == []


def test_no_upgrade_while_draining(machine: Machine, service: RelayService, binary: Connection) -> None:
    """An upgrade on a connection that was accepted before the stop is refused with 503."""
    early = machine.connect(PUBLIC)
    stop(service)
    assert status(early.upgrade("/v1/client")) == 503
    assert service.refusals.by_reason()["draining"] == 1


def test_peers_that_do_not_answer_are_cut_off(
    machine: Machine, service: RelayService, binary: Connection, phone: Connection
) -> None:
    """Peers that do not answer are aborted after the drain, and not before."""
    done = stop(service)
    phone.send_close(1001)
    pump(machine, 9.9)
    assert done == []
    assert phone.lost
    assert not binary.lost
    pump(machine, 0.2)
    assert done == [None]
    assert ("abort", "192.0.2.1") in machine.history
    pump(machine, 1)
    assert binary.lost


def test_nothing_is_left_after_a_cut(machine: Machine, service: RelayService, binary: Connection) -> None:
    """An aborted peer leaves no grace, timer or loop behind."""
    done = stop(service)
    pump(machine, 12)
    assert done == [None]
    assert machine.getDelayedCalls() == []
    assert not any(factory.open for factory in service.factories)
    assert (service.gate.leases.connections, service.gate.leases.handshakes) == (0, 0)


def test_connections_that_are_not_upgraded_are_dropped(machine: Machine, service: RelayService) -> None:
    """Connections that are not upgraded are dropped at once."""
    idle = machine.connect(PUBLIC)
    done = stop(service)
    assert done == [None]
    pump(machine, 1)
    assert idle.lost
    assert service.gate.leases.handshakes == 0
    assert machine.getDelayedCalls() == []


def test_a_second_stop(machine: Machine, service: RelayService, binary: Connection) -> None:
    """A second stop aborts the remaining connections at once."""
    done = stop(service)
    pump(machine, 1)
    assert done == []
    service.skip_drain()
    pump(machine, 0.1)
    assert done == [None]
    assert ("abort", "192.0.2.1") in machine.history


def test_a_second_stop_before_the_drain_has_begun(machine: Machine, service: RelayService, binary: Connection) -> None:
    """A second stop counts while the listeners are still closing, too."""
    closing: Deferred[None] = Deferred()
    machine.ports[PUBLIC].stopListening = lambda: closing  # type: ignore[method-assign, assignment]
    done = stop(service)
    service.skip_drain()
    closing.callback(None)
    pump(machine, 0.1)
    assert done == [None]


def test_a_protocol_is_waited_for_whose_answer_waits_for_another(machine: Machine) -> None:
    """A Deferred that has fired and now waits for what its callback returned is waited for like any other."""
    service = build(Settings(), machine, machine.seconds)
    service.startService()
    second: Deferred[None] = Deferred()
    service.protocols[0].drain = lambda: succeed(None).addCallback(lambda _: second)  # type: ignore[method-assign]
    done = stop(service)
    pump(machine, 1)
    assert done == []
    second.callback(None)
    pump(machine, 1)
    assert done == [None]


def test_a_service_that_only_listened_can_be_stopped(machine: Machine) -> None:
    """A service that listens and was never started can be stopped."""
    service = build(Settings(), machine, machine.seconds)
    service.privilegedStartService()
    done = stop(service)
    assert done == [None]
    assert machine.listening == []
    assert machine.getDelayedCalls() == []


def test_no_admin_listener(machine: Machine) -> None:
    """The stop works without an admin listener."""
    service = build(Settings(admin_listen=""), machine, machine.seconds)
    service.startService()
    assert stop(service) == [None]
    assert machine.history == [("listen", PUBLIC), ("stop listening", PUBLIC)]


def test_the_end_is_logged(machine: Machine, service: RelayService, binary: Connection, phone: Connection) -> None:
    """The end is logged with the number of connections to close."""
    with captured() as log:
        stop(service)
    assert log.texts[0] == "shutting down, 2 connections to close"


def test_the_close_timeout_of_a_peer_may_end_the_drain(machine: Machine) -> None:
    """The drain ends as soon as the last silent peer was aborted after its own close timeout."""
    service = build(Settings(), machine, machine.seconds)
    service.startService()
    upgraded(machine, "192.0.2.1", "/v1/server")
    done = stop(service)
    pump(machine, 4.9)
    assert done == []
    pump(machine, 1)
    assert done == [None]


def test_nothing_waits_to_be_logged(
    machine: Machine, service: RelayService, binary: Connection, phone: Connection
) -> None:
    """The last log lines are written by the time that the service has stopped."""
    with captured() as log:
        done = stop(service)
        service.skip_drain()
        pump(machine, 1.0)
        assert len(done) == 1
    gone = [text for text in log.texts if " gone, code " in text]
    assert len(gone) == 2
    assert not machine.getDelayedCalls()
