"""Take a connection to the instance that holds its key: connect, tell who the client is, and splice.

The owner gets a PROXY header with a ticket, and then every byte that the client has sent. From its first byte on, both
are spliced. A connection whose owner cannot be reached, or says nothing, is answered 503, with ``Retry-After: 1``.
Times are seconds.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.error import AlreadyCalled
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.splice.figures import Figures
from pyryrelay.cluster.splice.header import header
from pyryrelay.cluster.splice.links import Links
from pyryrelay.cluster.splice.ticket import NONCE_BYTES, Ticket, write
from pyryrelay.http.placement import UNAVAILABLE, Attempt
from pyryrelay.protocol import Cancellable
from pyryrelay.runtime.splice.splice import Splice
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.runtime.twisted_internals import write_at_once

__all__ = ["ANSWER_TIMEOUT_S", "CONNECT_TIMEOUT_S", "DEAD_AFTER_MS", "OwnerCarrier", "Splicing", "connect"]

_log = Logger(namespace="pyryrelay")

CONNECT_TIMEOUT_S: Final = 2.0
ANSWER_TIMEOUT_S: Final = 5.0
"""How long an owner may take to answer a connection: as long as a request head may take."""
DEAD_AFTER_MS: Final = 30_000
"""How long bytes to another instance may be unacknowledged: a host that vanishes closes nothing."""
_UNIX: Final = "unix:"


def connect(reactor: Any, address: str, factory: ClientFactory) -> None:
    """Connect to an instance's address: ``HOST:PORT`` with a numeric host, or ``unix:PATH``.

    The factory is told a failure. An endpoint of Twisted's would do the same at a tenth of a splice's cost.
    """
    if address.startswith(_UNIX):
        reactor.connectUNIX(address.removeprefix(_UNIX), factory, CONNECT_TIMEOUT_S)
        return
    host, _, port = address.rpartition(":")
    reactor.connectTCP(host.strip("[]"), int(port), factory, CONNECT_TIMEOUT_S)


@dataclass(frozen=True, slots=True, eq=False)
class Splicing:
    """What all carriers of a process share. ``now`` is the monotonic clock, and ``wall`` that of the machine."""

    reactor: Any
    wheel: TimerWheel
    now: Callable[[], float]
    wall: Callable[[], float]
    me: Member
    secret: bytes
    figures: Figures
    links: Links
    splices: dict[Splice, None] = field(default_factory=dict)
    """Those that are under way."""


class OwnerCarrier:
    """Carries connections with one key to its owner; ``failed`` is called if that cannot be reached."""

    def __init__(self, splicing: Splicing, owner: Member, failed: Callable[[], None]) -> None:
        self._splicing = splicing
        self._owner = owner
        self._failed = failed

    def carry(self, attempt: Attempt) -> None:
        """See `pyryrelay.http.placement.Carrier`."""
        _Ride(self._splicing, self._owner, attempt, self._failed).begin()


class _Ride:
    """One connection on its way to its owner."""

    def __init__(self, splicing: Splicing, owner: Member, attempt: Attempt, failed: Callable[[], None]) -> None:
        self._splicing = splicing
        self._owner = owner
        self._attempt = attempt
        self._failed = failed
        self._splice = Splice(splicing.wheel, splicing.now, self._ended)

    def begin(self) -> None:
        """Connect to the owner."""
        connect(self._splicing.reactor, self._owner.address, _OwnerFactory(self))

    def refuse(self, why: str) -> None:
        """Give the connection back: the owner cannot be reached, or has said nothing."""
        self._splicing.figures.failed += 1
        self._splicing.links.failed(self._owner.address, why)
        _log.debug("no answer of instance {endpoint}: {reason}", endpoint=self._owner.address, reason=why)
        self._failed()
        self._attempt.refuse(UNAVAILABLE)

    def answered(self, transport: IStreamTransport, data: bytes) -> None:
        """Pass on from now on, beginning with the owner's first bytes."""
        splicing, splice, connection = self._splicing, self._splice, self._attempt.connection
        splicing.figures.begun += 1
        splicing.links.worked(self._owner.address)
        splicing.splices[splice] = None
        splice.far.take(transport, data)
        try:
            if isinstance(connection, socket.SocketType):
                splice.near.adopt(splicing.reactor, connection, self._attempt.address)
            else:
                splice.near.take(connection)
                # It was not read from while the owner was asked.
                splice.near.resume()
        except OSError:
            # The client has left, or there is no descriptor left.
            if isinstance(connection, socket.SocketType):
                connection.close()
            splice.abort()

    def opening(self) -> bytes:
        """Return what the owner is sent before anything else."""
        splicing, attempt = self._splicing, self._attempt
        client = attempt.client.ip
        ticket = Ticket(splicing.me.name, str(client), splicing.wall(), secrets.token_bytes(NONCE_BYTES))
        return header(client, write(ticket, self._owner, splicing.secret)) + attempt.head + attempt.rest

    def timer(self, call: Callable[[], None]) -> Cancellable:
        """Make a call when the owner has had enough time to answer."""
        timer: Cancellable = self._splicing.reactor.callLater(ANSWER_TIMEOUT_S, call)
        return timer

    def _ended(self) -> None:
        splice = self._splice
        del self._splicing.splices[splice]
        self._splicing.figures.bytes += splice.near.passed_bytes + splice.far.passed_bytes
        self._attempt.lease.release()


class _Asking(Protocol):
    """The connection to an owner until it answers: a client whose owner does not must not be left without an answer."""

    transport: IStreamTransport
    _timer: Cancellable

    def __init__(self, ride: _Ride) -> None:
        self._ride: _Ride | None = ride

    def connectionMade(self) -> None:
        """Say who the client is, and what it has asked."""
        assert self._ride is not None
        _watch(self.transport)
        self._timer = self._ride.timer(self.transport.abortConnection)
        write_at_once(self.transport, self._ride.opening())

    def dataReceived(self, data: bytes) -> None:
        """The owner answers, whatever it is."""
        ride, self._ride = self._ride, None
        self._timer.cancel()
        if ride is not None:
            ride.answered(self.transport, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The owner is gone, or took too long."""
        ride, self._ride = self._ride, None
        if ride is None:
            return
        with contextlib.suppress(AlreadyCalled):
            self._timer.cancel()
        ride.refuse(_why(reason))


class _OwnerFactory(ClientFactory):
    noisy = False

    def __init__(self, ride: _Ride) -> None:
        self._ride = ride

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Asking(self._ride)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """The owner cannot be reached."""
        self._ride.refuse(_why(reason))


def _why(reason: Failure) -> str:
    """Return why a connection failed. Twisted may wrap the failure in an error whose text would be a traceback."""
    inner = next(iter(getattr(reason.value, "args", ())), None)
    failure = inner if isinstance(inner, Failure) else reason
    number = getattr(failure.value, "osError", None)
    return os.strerror(number) if isinstance(number, int) else failure.getErrorMessage().rstrip(".")


def _watch(transport: Any) -> None:
    """Notice that the other host is gone although it closes nothing."""
    with contextlib.suppress(AttributeError, OSError):
        plain = transport.getHandle()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
