"""The door: the listening socket of ``tcp:`` endpoints, which refuses without building a protocol.

Most of what refusing costs in Python is building what a connection would need if it were admitted. So the door accepts
by itself, and for those whom the gate refuses that is all: one read of what is there, one canned answer, closed. An
attempt that it admits, with a whole, plain head, becomes a WebSocket connection at once. Everybody else goes to the
`HttpConnection`, which is also handed what was read, with a transport of Twisted's.

Who is refused here:

* at accept (jailed, denied, too many unfinished handshakes): dropped at once where that refusal is not answered,
  otherwise answered if bytes are there;
* on an application's path (quotas, caps, and the jail for whom a trusted proxy names; whoever asks for no upgrade): if
  a whole, plain head is there (`pyryrelay.http.fast_head`).

An answer that goes out while bytes are unread is destroyed by the reset that they cause, so what may be more than was
read is left to the entrance. So are connections that begin with a PROXY header, and all heads that are not plain.

Invariants: decisions, counters, observer calls and bytes on the wire are those of the entrance (`decision` makes them
for both). A turn of the reactor accepts at most `BATCH` connections, so that a flood keeps nobody else waiting for
longer than some milliseconds, and in a flood they are accepted by the clock (`pyryrelay.listen.accept_pacing`). No
failure to accept ends the listening, and none makes it spin.

With ``TCP_DEFER_ACCEPT`` the kernel keeps a connection to itself until its first bytes are there. Linux counts in
repeated SYN-ACKs (after 1, 3, 7, ... s) and rounds up; a connection that is still silent then is accepted after all,
and the entrance ends it in its own time. Under SYN cookies nothing is deferred.

Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

import socket
from time import perf_counter
from typing import Any, Final, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReadDescriptor
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pyryrelay.guard import ClientAddress, Refusal
from pyryrelay.guard.address.clientip import PROXY_SIGNS, Via
from pyryrelay.http.answering import cancel
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.fast_head import FastHeadParser, field_values
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
from pyryrelay.listen.accept_pacing import LOOK_S, AcceptPacing
from pyryrelay.listen.exhaustion import PAUSE_S, Exhaustion
from pyryrelay.listen.sockets import (
    EXHAUSTED,
    PASSING,
    RECEIVE_BYTES,
    SEND_BYTES,
    Address,
    Listening,
    Socket,
    finish,
    listening_socket,
    read,
)
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.runtime.socket_options import INHERITS_OPTIONS
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.runtime.twisted_internals import PortlessServer

__all__ = ["BATCH", "AcceptReactor", "AcceptedConnection", "Acceptor"]

_log = Logger(namespace="pyryrelay")

BATCH: Final = 32
"""Connections accepted in one turn of the reactor: about a millisecond of refusals, or some of upgrades."""


class AcceptedConnection(PortlessServer):
    """An accepted connection, as Twisted's own ports make them."""

    is_tuned = INHERITS_OPTIONS


@implementer(IListeningPort, IReadDescriptor)
class Acceptor:
    """See the module's docstring. The reactor must provide `IReactorFDSet` and `IReactorTime`."""

    socket: Listening | None = None
    connection: type[AcceptedConnection] = AcceptedConnection

    def __init__(self, reactor: Any, port: int, factory: HttpFactory, backlog: int = 50, interface: str = "") -> None:
        self._reactor = reactor
        self._port = port
        self.factory = factory
        self._backlog = backlog
        self._interface = interface
        self._context = context = factory.context
        self._live = context.live
        self._adopted = 0
        self._parse_fast = FastHeadParser(
            {path: route.application.name for path, route in context.routes.items()}, PROXY_SIGNS
        )
        # As many as came the last time: to find out that nobody is there costs as much as somebody would.
        self._most = 1
        self._pacing = AcceptPacing()
        self._is_read = False
        self._next: Any = None
        self._exhaustion = Exhaustion(context.now)

    # IListeningPort

    def startListening(self) -> None:
        """Bind, listen, and accept from the next turn on. Raises `CannotListenError`."""
        try:
            self.socket = listening_socket(self._port, self._interface, self._backlog, self._context.head_timeout_s)
        except OSError as error:
            raise CannotListenError(self._interface, self._port, error) from error
        self.factory.doStart()
        self._accept_whenever()
        _log.info("Acceptor starting on {endpoint}", endpoint=self.socket.getsockname()[1])

    def stopListening(self) -> Deferred[None]:
        """Stop; connections that nobody has accepted yet are reset. A second time is the same as once."""
        self._close()
        return succeed(None)

    def _close(self) -> None:
        if self.socket is None:
            return
        self._accept_in(None)
        self.socket.close()
        self.socket = None
        self.factory.doStop()

    def getHost(self) -> IPv4Address | IPv6Address:
        """Where it listens; not before it does."""
        assert self.socket is not None
        family = IPv6Address if self.socket.family == socket.AF_INET6 else IPv4Address
        return family("TCP", *self.socket.getsockname())

    # IReadDescriptor

    def fileno(self) -> int:
        """The listening socket's descriptor; -1 where there is none."""
        return -1 if self.socket is None else self.socket.fileno()

    def logPrefix(self) -> str:
        """The name in the log of what goes wrong here."""
        return "Acceptor"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        self._close()

    def doRead(self) -> None:
        """Accept who is there, up to `BATCH`; the reactor calls again while there are more, or a clock does.

        Whoever is upgraded is told so at the end. An answer wakes up its peer, which on the same machine takes as long
        as some of the next one's upgrade; and a peer that leaves at once and comes again must not be met before it is
        known that it has left.
        """
        callbacks, accepted = self._context.callbacks, 0
        callbacks.begin_batch()
        try:
            accepted = self._accept()
        finally:
            upgraded = callbacks.end_batch()
            self._go_on(accepted)
            for websocket in upgraded:
                try:
                    websocket.flush()
                except Exception:
                    _log.failure("A connection could not be accepted")
                    websocket.transport.abortConnection()

    def _accept(self) -> int:
        """Deal with all who are there, up to a bound, and return how many that were."""
        most = BATCH if self._pacing.is_on else self._most
        for accepted in range(most):
            if self.socket is None or self._next is not None:
                return accepted
            try:
                sock, address = self.socket.accept()
            except BlockingIOError:
                self._most = max(1, accepted)
                return accepted
            except OSError as error:
                if error.errno not in PASSING:
                    self._stop_for_now(error)
                continue
            self.receive(sock, address)
        self._most = min(BATCH, 2 * most)
        return most

    def _go_on(self, accepted: int) -> None:
        """See to it that there is a next time, now that so many have been accepted."""
        pacing = self._pacing
        pacing.came(accepted, self._context.now())
        if self.socket is None or self._next is not None:
            return
        if pacing.is_on:
            self._accept_in(LOOK_S if accepted < BATCH else 0)
        elif not self._is_read:
            self._accept_whenever()

    def _accept_whenever(self) -> None:
        """Have the reactor call when somebody is there."""
        self._is_read = True
        self._reactor.addReader(self)

    def _accept_in(self, seconds: float | None) -> None:
        """Leave who comes in the queue for so long, or for ever."""
        if self._is_read:
            self._is_read = False
            self._reactor.removeReader(self)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if seconds is not None:
            self._next = self._reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        """The time is over for which who came was left in the queue."""
        self._next = None
        if self._pacing.is_on:
            self.doRead()
        else:
            self._accept_whenever()

    # One connection

    def receive(self, sock: Socket, peer: Address) -> None:
        """Take over a connection that was accepted, here or elsewhere."""
        try:
            self._receive(sock, peer)
        except Exception as error:
            self._failed(sock, error)

    def _receive(self, sock: Socket, peer: Address) -> None:
        """Refuse whom the gate does not let in, and hand on everybody else."""
        context, trust, host = self._context, self._live.trust, peer[0]
        if context.proxy_protocol:
            self._adopt(sock, peer, b"")
            return
        # A trusted proxy speaks for many, and only the head says for whom.
        address, now = None if trust.is_proxy(host) else trust.derive(host, ()), context.now()
        refusal = context.gate.peek_arrival(address, now)
        if refusal is not None:
            self._turn_away(sock, peer, refusal, address)
            return
        data = read(sock)
        if data:
            self._attempt(sock, peer, data, address, now)
        elif data is None:
            self._adopt(sock, peer, b"")
        else:
            sock.close()
            record_departure(context, address)

    def _turn_away(self, sock: Socket, peer: Address, refusal: Refusal, address: ClientAddress | None) -> None:
        """Refuse at accept, unless an answer is owed and there is no whole request to give it to."""
        context = self._context
        is_there = False
        if refusal.reason not in self._live.dropped:
            data = read(sock)
            if data is None or len(data) == RECEIVE_BYTES:
                self._adopt(sock, peer, data or b"")
                return
            is_there = data != b""
        answer = refuse_arrival(context, refusal, address, len(context.waiting) + 1)
        if is_there or not answer:
            finish(sock, answer)
        else:
            sock.close()

    def _attempt(self, sock: Socket, peer: Address, data: bytes, address: ClientAddress | None, now: float) -> None:
        """Refuse or upgrade an attempt whose head can be judged at a glance; leave any other to an entrance."""
        context, began = self._context, perf_counter()
        seen = None if len(data) == RECEIVE_BYTES or self._live.draining else self._parse_fast(data)
        if seen is None:
            self._adopt(sock, peer, data)
            return
        name, is_marked, asks, end = seen
        client, via = address, Via.STRANGER if is_marked else Via.DIRECT
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
            self._carry_out(self._decide(data[:end], peer), sock, peer, data[end:])
        context.observer.decided(perf_counter() - began)

    def _decide(self, head: bytes, peer: Address) -> Upgrade | ResponseBytes | PendingAnswer:
        """Decide about a request that the gate has admitted."""
        try:
            return decide(self._context, head, peer[0], is_admitted=True)
        except Exception:
            _log.failure("A request could not be answered")
            return refuse(self._context, None, 500, RefusalWord.INTERNAL_ERROR, None)

    def _carry_out(
        self, decision: Upgrade | ResponseBytes | PendingAnswer, sock: Socket, peer: Address, rest: bytes
    ) -> None:
        """Do what was decided; ``rest`` is what was read behind the head."""
        if isinstance(decision, Upgrade):
            self._upgrade(sock, peer, decision, rest)
        elif isinstance(decision, bytes) and len(decision) <= SEND_BYTES:
            finish(sock, decision)
        else:
            self._hand_over(sock, peer, decision)

    def _upgrade(self, sock: Socket, peer: Address, upgrade: Upgrade, rest: bytes) -> None:
        """Make a WebSocket connection at once: an entrance would be made and thrown away in the same moment."""
        callbacks = self._context.callbacks
        self._adopted += 1
        websocket = upgrade.factory.build(upgrade.request)
        server = AcceptedConnection(cast(Any, sock), websocket, peer, cast(Any, None), self._adopted, self._reactor)
        transport = cast(IStreamTransport, server)
        try:
            if callbacks.accepted is not None:
                callbacks.accepted(transport)
            websocket.upgrade(transport, upgrade.request, upgrade.key, rest)
            if websocket.refusal is not None:
                self.factory.buildProtocol(None).take_denied(transport, websocket)
            else:
                callbacks.upgraded(websocket)
        except Exception:
            transport.abortConnection()
            _log.failure("A connection could not be accepted")

    def _adopt(self, sock: Socket, address: Address, data: bytes) -> None:
        """Give a connection to the reactor and an entrance, as if it had just been accepted."""
        protocol = self._protocol(address)
        transport = self._transport(sock, protocol, address)
        try:
            protocol.makeConnection(transport)
            if data:
                protocol.dataReceived(data)
        except Exception:
            transport.abortConnection()
            _log.failure("A connection could not be accepted")

    def _hand_over(self, sock: Socket, address: Address, answer: ResponseBytes | PendingAnswer) -> None:
        """Give a connection to the reactor, and its answer, which is large or comes later, to an `HttpConnection`."""
        connection = self.factory.buildProtocol(None)
        try:
            transport = self._transport(sock, connection, address)
        except Exception:
            if isinstance(answer, PendingAnswer):
                cancel(answer)
            raise
        try:
            connection.makeConnection(transport)
            connection.take_answer(answer)
        except Exception:
            transport.abortConnection()
            _log.failure("A connection could not be accepted")

    def _transport(self, sock: Socket, protocol: Protocol, address: Address) -> AcceptedConnection:
        """Return the transport of a connection, which the reactor reads from. Raises `OSError` if it cannot."""
        self._adopted += 1
        return self.connection(cast(Any, sock), protocol, address, cast(Any, None), self._adopted, self._reactor)

    def _protocol(self, address: Address) -> Protocol:
        """What a connection of that peer speaks to."""
        return self.factory.buildProtocol(None)

    # Failures

    def _failed(self, sock: Socket, error: Exception) -> None:
        """One connection could not be dealt with: it ends, and nothing else does."""
        sock.close()
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            self._stop_for_now(error)
        else:
            _log.failure("A connection could not be accepted", Failure(error))

    def _stop_for_now(self, error: Exception) -> None:
        """Leave who waits in the queue for a while: asking again at once would keep the process busy with nothing."""
        self._accept_in(PAUSE_S)
        self._exhaustion.tell(error)


class AcceptReactor:
    """What an endpoint takes for its reactor, so that Twisted's own parser of endpoints opens a `Acceptor`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    @staticmethod
    def fit(reactor: object) -> bool:
        """Whether there can be a door under this reactor."""
        return hasattr(socket, "MSG_DONTWAIT") and IReactorFDSet.providedBy(reactor)

    def listenTCP(self, port: int, factory: HttpFactory, backlog: int = 50, interface: str = "") -> Acceptor:  # noqa: N802
        """Open a door. Raises `CannotListenError`."""
        acceptor = Acceptor(self._reactor, port, factory, backlog, interface)
        acceptor.startListening()
        return acceptor
