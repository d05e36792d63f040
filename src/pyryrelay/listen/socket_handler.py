"""What becomes of an accepted socket of a ``tcp:`` endpoint: it is refused, upgraded, or given to an `HttpConnection`.

Most of the cost of a refusal in Python is building what the connection would need if it were admitted. So a connection
that the gate refuses gets no protocol and no transport: what has arrived is read once, a canned answer is sent, and the
socket is closed. An attempt to upgrade that the gate admits, and whose head is whole and plain, becomes a WebSocket
connection at once, or is carried to the process that serves it. All others go to an `HttpConnection` with a transport
of Twisted's, and with the bytes that were read.

These are refused here:

* at accept: clients that are jailed or denied, or have too many unfinished handshakes. They are dropped at once if that
  refusal is not answered, and answered if their first bytes are there.
* on an application's path, if there is a whole, plain head (`pyryrelay.http.fast_head`): clients without a token or a
  place, and clients in jail that a trusted proxy names.

An answer that is sent while bytes are unread is destroyed by the reset that they cause. So an `HttpConnection` gets
every connection that may have sent more than was read. It also gets those that begin with a PROXY header, whose head is
not plain, or whose answer is large or comes later.

Invariants: decisions, counters, calls of the observer and bytes sent are those of an `HttpConnection`, because
`pyryrelay.http.routing` and `pyryrelay.http.refusals` make them for both.

Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger

from pyryrelay.guard import ClientAddress, Refusal
from pyryrelay.guard.address.clientip import PROXY_SIGNS, Via
from pyryrelay.http.answering import cancel
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.fast_head import FastHeadParser, field_values
from pyryrelay.http.placement import Carrier
from pyryrelay.http.placing import admit, attempt_of, give_to, refuse_carried
from pyryrelay.http.plain_requests import PendingAnswer
from pyryrelay.http.refusals import (
    ResponseBytes,
    record_departure,
    refuse,
    refuse_arrival,
    refuse_attempt,
    refuse_request,
)
from pyryrelay.http.routing import Upgrade, decide
from pyryrelay.listen.sockets import RECEIVE_BYTES, SEND_BYTES, Address, Socket, finish, read
from pyryrelay.protocol import HttpRefusal
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.runtime.socket_options import INHERITS_OPTIONS
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.runtime.twisted_internals import PortlessServer

_log = Logger(namespace="pyryrelay")


class AcceptedConnection(PortlessServer):
    """The transport of an accepted connection, like those of Twisted's own ports."""

    is_tuned = INHERITS_OPTIONS


class SocketHandler:
    """See the module's docstring. The reactor must provide `IReactorFDSet`."""

    connection: type[AcceptedConnection] = AcceptedConnection

    def __init__(self, reactor: Any, factory: HttpFactory) -> None:
        self._reactor = reactor
        self._factory = factory
        self._context = context = factory.context
        self._live = context.live
        self._adopted = 0
        self._parse_fast = FastHeadParser(
            {path: route.application.name for path, route in context.routes.items()}, PROXY_SIGNS
        )

    def handle(self, sock: Socket, peer: Address) -> None:
        """Take over a socket. Raises `OSError` if the reactor cannot watch it; closing it is the caller's task then."""
        context, trust, host = self._context, self._live.trust, peer[0]
        if context.proxy_protocol:
            self._adopt(sock, peer, b"")
            return
        # Only the head says which client a trusted proxy speaks for.
        address, now = None if trust.is_proxy(host) else trust.derive(host, ()), context.now()
        refusal = context.gate.peek_arrival(address, now)
        if refusal is not None:
            self._refuse_arrival(sock, peer, refusal, address)
            return
        data = read(sock)
        if data:
            self._request(sock, peer, data, address, now)
        elif data is None:
            self._adopt(sock, peer, b"")
        else:
            sock.close()
            record_departure(context, address)

    def _refuse_arrival(self, sock: Socket, peer: Address, refusal: Refusal, address: ClientAddress | None) -> None:
        """Refuse at accept, unless the client must get an answer and its request may not be complete."""
        context = self._context
        has_sent = False
        if refusal.reason not in self._live.dropped:
            data = read(sock)
            if data is None or len(data) == RECEIVE_BYTES:
                self._adopt(sock, peer, data or b"")
                return
            has_sent = data != b""
        answer = refuse_arrival(context, refusal, address, len(context.waiting) + 1)
        if has_sent or not answer:
            finish(sock, answer)
        else:
            sock.close()

    def _request(self, sock: Socket, peer: Address, data: bytes, address: ClientAddress | None, now: float) -> None:
        """Decide about a request whose head is whole and plain; leave any other to an `HttpConnection`."""
        context, began = self._context, perf_counter()
        seen = None if len(data) == RECEIVE_BYTES or self._live.draining else self._parse_fast(data)
        if seen is None:
            self._adopt(sock, peer, data)
            return
        name, is_marked, asks, end = seen
        client, via = address, Via.UNTRUSTED_HEADERS if is_marked else Via.DIRECT
        if client is None:
            trust = self._live.trust
            lines = field_values(data, end, trust.header)
            client = trust.derive(peer[0], lines)
            via = trust.via(lines, client)
        if asks:
            answer = refuse_attempt(context, name, client, via, now)
        else:
            answer = refuse_request(context, name, client, now)
        if answer is not None:
            finish(sock, answer)
        else:
            head = data[:end]
            self._carry_out(self._decide(head, peer), sock, peer, head, data[end:])
        context.observer.decided(perf_counter() - began)

    def _decide(self, head: bytes, peer: Address) -> Upgrade | ResponseBytes | PendingAnswer:
        """Decide about a request that the gate has admitted."""
        try:
            return decide(self._context, head, peer[0], is_admitted=True)
        except Exception:
            _log.failure("A request could not be answered")
            return refuse(self._context, None, 500, RefusalWord.INTERNAL_ERROR, None)

    def _carry_out(
        self, decision: Upgrade | ResponseBytes | PendingAnswer, sock: Socket, peer: Address, head: bytes, rest: bytes
    ) -> None:
        """Do what was decided; ``rest`` is what was read behind the head."""
        if isinstance(decision, Upgrade):
            if decision.place is None:
                self._upgrade(sock, peer, decision, rest)
            elif isinstance(decision.place, Deferred):
                self._hand_over(sock, peer, decision, head, rest)
            else:
                self._carry(sock, peer, decision, decision.place, head, rest)
        elif isinstance(decision, bytes) and len(decision) <= SEND_BYTES:
            finish(sock, decision)
        else:
            self._hand_over(sock, peer, decision)

    def _upgrade(self, sock: Socket, peer: Address, upgrade: Upgrade, rest: bytes) -> None:
        """Make a WebSocket connection, without an `HttpConnection` that would have nothing to do."""
        callbacks = self._context.callbacks
        self._adopted += 1
        websocket = upgrade.factory.build(upgrade.request, upgrade.lease)
        server = AcceptedConnection(cast(Any, sock), websocket, peer, cast(Any, None), self._adopted, self._reactor)
        transport = cast(IStreamTransport, server)
        try:
            if callbacks.accepted is not None:
                callbacks.accepted(transport)
            websocket.upgrade(transport, upgrade.request, upgrade.key, rest)
            if websocket.refusal is not None:
                self._factory.buildProtocol(None).take_denied(transport, websocket)
            else:
                callbacks.upgraded(websocket)
        except Exception:
            transport.abortConnection()
            _log.failure("A connection could not be accepted")

    def _carry(self, sock: Socket, peer: Address, upgrade: Upgrade, carrier: Carrier, head: bytes, rest: bytes) -> None:
        """Admit a connection that another process serves, and give it to its carrier."""
        lease = admit(self._context, upgrade)
        if isinstance(lease, bytes):
            finish(sock, lease)
            return

        def refuse_it(refusal: HttpRefusal) -> None:
            lease.release()
            self._hand_over(sock, peer, refuse_carried(self._context, upgrade, refusal))

        give_to(carrier, attempt_of(self._context, upgrade, head, rest, lease, sock, peer, refuse_it))

    def _adopt(self, sock: Socket, peer: Address, data: bytes) -> None:
        """Give a connection to the reactor and an `HttpConnection`, as if it had just been accepted."""
        protocol = self._protocol(peer)
        transport = self._transport(sock, protocol, peer)
        try:
            protocol.makeConnection(transport)
            if data:
                protocol.dataReceived(data)
        except Exception:
            transport.abortConnection()
            _log.failure("A connection could not be accepted")

    def _hand_over(
        self,
        sock: Socket,
        peer: Address,
        answer: Upgrade | ResponseBytes | PendingAnswer,
        head: bytes = b"",
        rest: bytes = b"",
    ) -> None:
        """Give a connection to the reactor, and its answer, which is large or comes later, to an `HttpConnection`.

        So it is with an upgrade whose place is not known yet.
        """
        connection = self._factory.buildProtocol(None)
        try:
            transport = self._transport(sock, connection, peer)
        except Exception:
            if isinstance(answer, PendingAnswer):
                cancel(answer)
            elif isinstance(answer, Upgrade):
                connection.give_up(answer)
            raise
        try:
            connection.makeConnection(transport)
            if isinstance(answer, Upgrade):
                connection.take_attempt(answer, head, rest)
            else:
                connection.take_answer(answer)
        except Exception:
            transport.abortConnection()
            _log.failure("A connection could not be accepted")

    def _transport(self, sock: Socket, protocol: Protocol, peer: Address) -> AcceptedConnection:
        """Return the transport of a connection, which the reactor reads from. Raises `OSError` if it cannot."""
        self._adopted += 1
        return self.connection(cast(Any, sock), protocol, peer, cast(Any, None), self._adopted, self._reactor)

    def _protocol(self, peer: Address) -> Protocol:
        """Return the protocol for a connection from that peer."""
        return self._factory.buildProtocol(None)
