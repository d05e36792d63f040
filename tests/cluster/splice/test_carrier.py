"""Connections on their way to the instance that holds their key."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.capture import Captured
from tests.support.harness import client_of
from tests.support.transports import Transport, tcp_address
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.splice import carrier as module
from pyryrelay.cluster.splice.carrier import OwnerCarrier, Splicing, connect
from pyryrelay.cluster.splice.figures import Figures
from pyryrelay.cluster.splice.header import ticket_of
from pyryrelay.cluster.splice.links import Links
from pyryrelay.cluster.splice.ticket import Nonces, read
from pyryrelay.http.placement import Attempt
from pyryrelay.http.proxy_protocol.proxy_header import ProxyHeaderParser
from pyryrelay.protocol import HttpRefusal, Request
from pyryrelay.runtime.timer_wheel import TimerWheel

SECRET = b"secret"
ME = Member("10.0.0.1:7000", "b1", "10.0.0.1:7000")
OWNER = Member("10.0.0.2:7000", "b2", "10.0.0.2:7000")
CLIENT = "192.0.2.1"
WALL = 1_790_000_000.0
HEAD, REST = b"GET /x HTTP/1.1\r\n\r\n", b"rest"


@dataclass
class Held:
    """A lease."""

    released: int = 0

    def release(self) -> None:
        """Count."""
        self.released += 1


@dataclass
class Ride:
    """A connection that is to be carried, and what became of it."""

    connection: Any = field(default_factory=lambda: Transport(tcp_address(CLIENT)))
    lease: Held = field(default_factory=Held)
    refusals: list[HttpRefusal] = field(default_factory=list)
    failed: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reactor = MemoryReactorClock()
        clock = Clock()
        wheel = TimerWheel(clock, clock.seconds)
        self.splicing = Splicing(
            self.reactor, wheel, clock.seconds, lambda: WALL, ME, SECRET, Figures(), Links(clock.seconds)
        )
        request = Request("/v1/server", {}, client_of(CLIENT))
        attempt = Attempt(
            HEAD,
            REST,
            "server",
            "key",
            request,
            "",
            self.lease,
            self.connection,
            None,
            self.refusals.append,
            lambda call: call(),
        )
        OwnerCarrier(self.splicing, OWNER, lambda: self.failed.append(True)).carry(attempt)

    def connect(self) -> Transport:
        """Let the owner accept; return the transport of that connection."""
        ((host, port, factory, timeout, _),) = self.reactor.tcpClients
        assert (host, port, timeout) == ("10.0.0.2", 7000, module.CONNECT_TIMEOUT_S)
        transport = Transport(tcp_address("10.0.0.2"))
        protocol: Any = factory.buildProtocol(None)
        transport.connect(protocol)
        return transport


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have transports in memory change their protocol."""

    def replace(transport: Any, protocol: Any) -> None:
        transport.protocol = protocol

    monkeypatch.setattr("pyryrelay.runtime.splice.splice.replace_protocol", replace)


@pytest.mark.usefixtures("replaced")
def test_the_owner_learns_who_the_client_is() -> None:
    """It gets a header with a ticket, the head, and what followed; then the bytes of both sides are passed on."""
    ride = Ride()
    far = ride.connect()
    parser = ProxyHeaderParser()
    header = parser.feed(bytes(far.taken))
    assert header is not None
    raw = ticket_of(header.tlvs)
    assert raw is not None
    assert (header.source, parser.rest) == (CLIENT, HEAD + REST)
    assert read(raw, OWNER, SECRET, WALL, Nonces())[:2] == (ME.name, CLIENT)
    assert (ride.splicing.figures.begun, ride.connection.protocol) == (0, None)
    answer(far, b"101")
    assert (ride.splicing.figures.begun, len(ride.splicing.splices), ride.lease.released) == (1, 1, 0)
    assert not ride.reactor.getDelayedCalls()
    far.taken.clear()
    ride.connection.protocol.dataReceived(b"up")
    answer(far, b"down")
    assert (bytes(far.taken), bytes(ride.connection.taken)) == (b"up", b"101down")
    far.lose(ConnectionDone())
    ride.connection.lose(ConnectionDone())
    assert (ride.lease.released, len(ride.splicing.splices), ride.splicing.figures.bytes) == (1, 0, 9)


def test_an_owner_that_cannot_be_reached() -> None:
    """The client is answered 503, and the route is forgotten."""
    ride = Ride()
    ((_, _, factory, _, _),) = ride.reactor.tcpClients
    connector: Any = None
    factory.clientConnectionFailed(connector, Failure(ConnectError()))
    ((status, reason, fields),) = [(refusal.status, refusal.reason, refusal.fields) for refusal in ride.refusals]
    assert (status, reason, fields) == (503, "owner_unavailable", (("Retry-After", "1"),))
    assert (ride.failed, ride.splicing.figures.failed, ride.splicing.figures.begun) == ([True], 1, 0)


def test_the_reason_is_told_in_a_few_words(log: Captured) -> None:
    """Twisted puts the failure of a connection that was lost before it stood into another error."""
    ride = Ride()
    ((_, _, factory, _, _),) = ride.reactor.tcpClients
    connector: Any = None
    factory.clientConnectionFailed(connector, Failure(ConnectError(string=Failure(ConnectionDone()))))
    assert log.texts[-1].endswith(f"no answer of instance {OWNER.address}: Connection was closed cleanly")
    ((_, _, factory, _, _),) = Ride().reactor.tcpClients
    factory.clientConnectionFailed(connector, Failure(ConnectError(osError=errno.ECONNREFUSED)))
    assert log.texts[-1].endswith(": Connection refused")


def test_an_owner_that_says_nothing() -> None:
    """The client is answered when the owner leaves, or has had enough time."""
    left = Ride()
    left.connect().lose()
    slow = Ride()
    far = slow.connect()
    slow.reactor.advance(module.ANSWER_TIMEOUT_S)
    assert far.aborted
    far.settle()
    for ride in (left, slow):
        assert [refusal.status for refusal in ride.refusals] == [503]
        assert not ride.reactor.getDelayedCalls()


def answer(transport: Transport, data: bytes) -> None:
    """Receive bytes of the owner."""
    protocol: Any = transport.protocol
    protocol.dataReceived(data)


@pytest.mark.usefixtures("replaced")
def test_a_client_that_has_left_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to the owner ends, and the lease is released."""

    def gone(*args: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr("pyryrelay.runtime.splice.splice.server_transport", gone)
    ours, theirs = socket.socketpair()
    theirs.close()
    ride = Ride(ours)
    far = ride.connect()
    answer(far, b"101")
    assert far.aborted
    far.settle()
    assert (ride.lease.released, len(ride.splicing.splices), ours.fileno()) == (1, 0, -1)


@pytest.mark.parametrize(
    ("address", "tcp", "unix"),
    [
        ("10.0.0.2:7000", [("10.0.0.2", 7000)], []),
        ("[fd00::1]:7000", [("fd00::1", 7000)], []),
        ("unix:/run/a.sock", [], ["/run/a.sock"]),
    ],
)
def test_addresses_of_instances(address: str, tcp: list[tuple[str, int]], unix: list[str]) -> None:
    """They are numeric, so that no name is looked up for each connection."""
    reactor, factory = MemoryReactorClock(), ClientFactory()
    connect(reactor, address, factory)
    assert [(host, port) for host, port, *_ in reactor.tcpClients] == tcp
    assert [path for path, *_ in reactor.unixClients] == unix
    for _, _, given, timeout, _ in reactor.tcpClients:
        assert (given, timeout) == (factory, module.CONNECT_TIMEOUT_S)
