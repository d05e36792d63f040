"""The end: stop listening, close everyone, wait for a bounded time, cut off who is left, leave nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.capture import captured
from tests.support.service import Connection, Machine, body, close_frame, status
from twisted.internet.defer import Deferred

from pyryrelay.config.settings import Settings
from pyryrelay.service import RelayService, Times, build

PUBLIC, ADMIN = 8080, 9090
GOING_AWAY = close_frame(1001, "shutting down")


@pytest.fixture
def service(machine: Machine) -> RelayService:
    """A relay that runs; peers may take longer to close than it waits for them."""
    service = build(Settings(), machine, machine.seconds, Times(drain_s=10.0, close_timeout_s=60.0))
    service.startService()
    return service


@pytest.fixture
def binary(machine: Machine, service: RelayService) -> Connection:
    """A binary that is connected."""
    return upgraded(machine, "192.0.2.1", "/v1/server")


@pytest.fixture
def phone(machine: Machine, binary: Connection) -> Connection:
    """A phone of that binary."""
    return upgraded(machine, "192.0.2.2", "/v1/client")


def upgraded(machine: Machine, host: str, path: str) -> Connection:
    """Somebody whom the relay has let in."""
    connection = machine.connect(PUBLIC, host)
    assert status(connection.upgrade(path)) == 101
    return connection


def stop(service: RelayService) -> list[Any]:
    """Stop the service; the list has one entry once that is done."""
    done: list[Any] = []
    stopping = service.stopService()
    assert isinstance(stopping, Deferred)
    stopping.addBoth(done.append)
    return done


def pump(machine: Machine, seconds: float) -> None:
    """Let time pass in small steps."""
    machine.pump([0.05] * round(seconds / 0.05))


def test_nobody_is_connected(machine: Machine, service: RelayService) -> None:
    """Then there is nothing to wait for, and nothing is left: no listener, no loop, no delayed call."""
    done = stop(service)
    assert done == [None]
    assert machine.listening == []
    assert machine.getDelayedCalls() == []
    assert not service.running


def test_listeners_go_first(machine: Machine, service: RelayService, binary: Connection) -> None:
    """By the time that anybody is told to go, nobody can come any more; the admin listener goes last."""
    del machine.history[:]
    done = stop(service)
    assert machine.history == [("stop listening", PUBLIC), ("write", "192.0.2.1")]
    assert machine.listening == [ADMIN]
    binary.send_close(1001)
    pump(machine, 1)
    assert done == [None]
    assert machine.history[-1] == ("stop listening", ADMIN)


def test_everyone_is_closed_with_1001(
    machine: Machine, service: RelayService, binary: Connection, phone: Connection
) -> None:
    """With the reason; once all have answered, the relay waits no longer."""
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
    """On the admin listener, and on connections that were there before."""
    early = machine.connect(PUBLIC)
    done = stop(service)
    assert body(early.ask("/healthz"))["status"] == "draining"
    answer = machine.connect(ADMIN).ask("/healthz", Connection="close")
    assert status(answer) == 503
    assert done == []


def test_no_upgrade_while_draining(machine: Machine, service: RelayService, binary: Connection) -> None:
    """A connection that was accepted before the stop is refused with 503."""
    early = machine.connect(PUBLIC)
    stop(service)
    assert status(early.upgrade("/v1/client")) == 503
    assert service.refusals.by_reason()["draining"] == 1


def test_peers_that_do_not_answer_are_cut_off(
    machine: Machine, service: RelayService, binary: Connection, phone: Connection
) -> None:
    """After the drain, and not before; one who answered is not waited for again."""
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
    """A peer that is cut off leaves no grace, no wheel and no loop behind."""
    done = stop(service)
    pump(machine, 12)
    assert done == [None]
    assert machine.getDelayedCalls() == []
    assert not any(factory.open for factory in service.factories)
    assert (service.gate.leases.connections, service.gate.leases.handshakes) == (0, 0)


def test_connections_that_are_not_upgraded_are_dropped(machine: Machine, service: RelayService) -> None:
    """They are owed nothing, and are not waited for."""
    idle = machine.connect(PUBLIC)
    done = stop(service)
    assert done == [None]
    pump(machine, 1)
    assert idle.lost
    assert service.gate.leases.handshakes == 0
    assert machine.getDelayedCalls() == []


def test_hurry(machine: Machine, service: RelayService, binary: Connection) -> None:
    """Whoever stops the relay twice does not want to wait."""
    done = stop(service)
    pump(machine, 1)
    assert done == []
    service.skip_drain()
    pump(machine, 0.1)
    assert done == [None]
    assert ("abort", "192.0.2.1") in machine.history


def test_hurry_before_the_drain_has_begun(machine: Machine, service: RelayService, binary: Connection) -> None:
    """It counts while the listeners are still being closed, too."""
    closing: Deferred[None] = Deferred()
    machine.ports[PUBLIC].stopListening = lambda: closing  # type: ignore[method-assign, assignment]
    done = stop(service)
    service.skip_drain()
    closing.callback(None)
    pump(machine, 0.1)
    assert done == [None]


def test_a_service_that_only_listened_can_be_stopped(machine: Machine) -> None:
    """As when another service of the same application fails to start."""
    service = build(Settings(), machine, machine.seconds)
    service.privilegedStartService()
    done = stop(service)
    assert done == [None]
    assert machine.listening == []
    assert machine.getDelayedCalls() == []


def test_no_admin_listener(machine: Machine) -> None:
    """What was turned off is not stopped."""
    service = build(Settings(admin_listen=""), machine, machine.seconds)
    service.startService()
    assert stop(service) == [None]
    assert machine.history == [("listen", PUBLIC), ("stop listening", PUBLIC)]


def test_the_end_is_logged(machine: Machine, service: RelayService, binary: Connection, phone: Connection) -> None:
    """With how many there were to close."""
    with captured() as log:
        stop(service)
    assert log.texts[0] == "shutting down, 2 connections to close"


def test_the_close_timeout_of_a_peer_may_end_the_drain(machine: Machine) -> None:
    """A silent peer is cut off after its own 5 s; the relay does not wait for the rest of the 10."""
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
    """The last lines are there when the service has stopped, whatever becomes of the reactor."""
    with captured() as log:
        done = stop(service)
        service.skip_drain()
        pump(machine, 1.0)
        assert len(done) == 1
    gone = [text for text in log.texts if " gone, code " in text]
    assert len(gone) == 2
    assert not machine.getDelayedCalls()
