"""Connections that another process of the relay has accepted, read the head of, and admitted.

What becomes of them is decided as if they had been accepted here, but the gate is not asked: the token is spent, and
the lease is held, where they were accepted. If they do not belong here, they are refused (503); a connection makes one
hop, and never two.

Invariant: the lease of each connection is released exactly once, when it has ended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger

from pyryrelay.guard import ClientAddress
from pyryrelay.http.connection import HttpConnection, HttpFactory
from pyryrelay.http.placement import Carrier, Placement
from pyryrelay.http.placing import attempt_of, give_to, refuse_carried
from pyryrelay.http.plain_requests import PendingAnswer
from pyryrelay.http.refusals import ResponseBytes, refuse
from pyryrelay.http.routing import Upgrade, decide_arrival
from pyryrelay.listen.socket_handler import AcceptedConnection
from pyryrelay.protocol import HttpRefusal, Request
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.runtime.socket_options import Socket
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.runtime.twisted_internals import PortlessUnixServer
from pyryrelay.websocket.guarded import HeldLease

__all__ = ["Arrival", "ArrivalHandler"]

_log = Logger(namespace="pyryrelay")


class Arrival(NamedTuple):
    """A connection from another process. ``address`` is that of the peer of the socket, None on a UNIX socket.

    ``request`` and ``key`` are what that process has understood of the ``head``, and found to be in order. ``rest`` is
    what was read behind it, and ``lease`` what that process is told the end by.
    """

    sock: Socket
    address: tuple[Any, ...] | None
    request: Request
    key: str
    head: bytes
    rest: bytes
    lease: HeldLease


class ArrivalHandler:
    """Takes over connections that were admitted elsewhere. The reactor must provide `IReactorFDSet`.

    ``placement`` is asked about them, if there is one, and may only answer `HERE` or refuse, unless its carriers go
    where no other process of this host can be reached, as those between hosts do.
    """

    def __init__(self, reactor: Any, factory: HttpFactory, placement: Placement | None = None) -> None:
        self._reactor = reactor
        # The headers of proxies, and their quotas, were seen to where the connection was accepted.
        self._context = replace(factory.context, placement=None, proxy_protocol=False, behind_proxy_protocol=False)
        self._factory = HttpFactory(self._context)
        self.placement = placement
        self._count = 0

    def begin_batch(self) -> None:
        """Receive several connections, and answer them all in `end_batch`."""
        self._context.callbacks.begin_batch()

    def end_batch(self) -> None:
        """Answer the connections that were received since `begin_batch`."""
        self._context.callbacks.end_batch()

    def client_of(self, text: str) -> ClientAddress | None:
        """Return the client that another process has named, as this one counts it."""
        return self._context.live.trust.read(text)

    def receive(self, arrival: Arrival) -> None:
        """Take over a connection, whatever becomes of it."""
        decision = self._decide(arrival)
        try:
            if not isinstance(decision, Upgrade) or isinstance(decision.place, Deferred):
                self._hand_over(arrival, decision)
            elif decision.place is None:
                self._upgrade(arrival, decision)
            else:
                self._carry(arrival, decision, decision.place)
        except OSError:
            # The reactor cannot watch another socket.
            arrival.sock.close()
            arrival.lease.release()

    def _decide(self, arrival: Arrival) -> Upgrade | ResponseBytes | PendingAnswer:
        context = self._context
        try:
            return decide_arrival(context, arrival.request, arrival.key, arrival.lease, self.placement)
        except Exception:
            _log.failure("A request could not be answered")
            return refuse(context, None, 500, RefusalWord.INTERNAL_ERROR, None)

    def _upgrade(self, arrival: Arrival, upgrade: Upgrade) -> None:
        """Make a WebSocket connection at once."""
        callbacks = self._context.callbacks
        websocket = upgrade.factory.build(upgrade.request)
        transport = self._transport(arrival, websocket)
        # From here on the connection releases it, whatever happens.
        websocket.hold(arrival.lease)
        try:
            if callbacks.accepted is not None:
                callbacks.accepted(transport)
            websocket.upgrade(transport, upgrade.request, upgrade.key, arrival.rest)
            callbacks.upgraded(websocket)
        except Exception:
            transport.abortConnection()
            _log.failure("A connection could not be accepted")

    def _carry(self, arrival: Arrival, upgrade: Upgrade, carrier: Carrier) -> None:
        """Give a connection that is served elsewhere to its carrier, as it came."""
        context, (sock, address, _, _, head, rest, lease) = self._context, arrival

        def refuse_it(refusal: HttpRefusal) -> None:
            answer = refuse_carried(context, upgrade, refusal)
            try:
                self._hand_over(arrival, answer)
            except OSError:
                sock.close()
                lease.release()

        give_to(carrier, attempt_of(context, upgrade, head, rest, lease, sock, address, refuse_it))

    def _hand_over(self, arrival: Arrival, decision: Upgrade | ResponseBytes | PendingAnswer) -> None:
        """Give a connection that is answered, waits or goes on to an `HttpConnection`."""
        connection: HttpConnection = self._factory.arrived(arrival.lease)
        try:
            transport = self._transport(arrival, connection)
        except OSError:
            if isinstance(decision, Upgrade):
                connection.give_up(decision)
            raise
        try:
            connection.makeConnection(cast(Any, transport))
            if isinstance(decision, Upgrade):
                connection.take_attempt(decision, arrival.head, arrival.rest)
            else:
                connection.take_answer(decision)
        except Exception:
            transport.abortConnection()
            _log.failure("A connection could not be accepted")

    def _transport(self, arrival: Arrival, protocol: Protocol) -> IStreamTransport:
        """Return the transport of a connection, which the reactor reads from. Raises `OSError` if it cannot."""
        self._count += 1
        sock, address = cast(Any, arrival.sock), arrival.address
        made: Any
        if address is None:
            made = PortlessUnixServer(sock, cast(Any, protocol), self._reactor)
        else:
            made = AcceptedConnection(sock, protocol, address, cast(Any, None), self._count, self._reactor)
        return cast(IStreamTransport, made)
