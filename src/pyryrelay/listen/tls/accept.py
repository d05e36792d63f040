"""What becomes of an accepted socket of an ``ssl:`` endpoint. The gate is asked before TLS begins.

A handshake is what costs most. A connection that is refused here is reset, because nothing can be read or answered
without a handshake. So the quotas of upgrades and of requests are left to the `HttpConnection`. So are clients on the
deny list, which get an answer as long as the quota of handshakes lasts. A connection that does not begin like TLS gets
an alert, and is closed.

As with any `Acceptor`, the kernel keeps a connection to itself until its first bytes are there. In TLS, these are the
client's.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from twisted.internet.protocol import Protocol

from pyryrelay.guard import Reason
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.refusals import record_departure, refuse_admission
from pyryrelay.listen.accept import Acceptor, AcceptReactor
from pyryrelay.listen.inherited import AdoptingReactor
from pyryrelay.listen.socket_handler import AcceptedConnection, SocketHandler
from pyryrelay.listen.sockets import Address, AnySocket, Socket, finish, read
from pyryrelay.listen.tls.certificates import CertificateStore
from pyryrelay.listen.tls.transport import TlsFactory
from pyryrelay.runtime.fair_queue import FairQueue
from pyryrelay.websocket.factory import own_queue

__all__ = ["TlsAcceptReactor", "TlsSocketHandler"]

HANDSHAKE: Final = b"\x16"
"""How TLS begins (RFC 8446 section 5.1)."""
UNEXPECTED_MESSAGE: Final = bytes.fromhex("15 0303 0002 02 0a")
"""The alert for a peer that begins otherwise (RFC 5246 section 7.2, RFC 8446 section 6)."""


class SendingConnection(AcceptedConnection):
    """A transport that sends at once if nothing waits, and not in the next turn of the reactor.

    By then the peer's end may have been read, and the connection would be lost with everything that waits.
    """

    _has_waiting = False

    def startWriting(self) -> None:  # noqa: N802
        """Data waits to be sent, or the end of the connection."""
        self._has_waiting = True
        super().startWriting()

    def stopWriting(self) -> None:  # noqa: N802
        """Everything is sent."""
        self._has_waiting = False
        super().stopWriting()

    def write(self, data: bytes) -> None:
        """Give the socket what it takes, and keep the rest. Errors of the socket show when it is read."""
        if not self._has_waiting and self.connected:
            with contextlib.suppress(OSError):
                data = data[self.socket.send(data) :]
        if data:
            super().write(data)


class TlsSocketHandler(SocketHandler):
    """See the module's docstring."""

    connection = SendingConnection

    def __init__(self, reactor: Any, factory: HttpFactory, certificates: CertificateStore) -> None:
        """Create a handler that takes the certificate of each connection from a store."""
        super().__init__(reactor, factory)
        self._tls = TlsFactory(certificates, factory, _queue_of(factory, reactor))

    def handle(self, sock: Socket, peer: Address) -> None:
        """Ask the gate, then begin TLS. See `SocketHandler.handle`."""
        context, live, host = self._context, self._live, peer[0]
        address, now = None if live.trust.is_proxy(host) else live.trust.derive(host, ()), context.now()
        refusal = context.gate.peek_arrival(address, now)
        if refusal is None or (refusal.reason is Reason.DENIED and Reason.DENIED not in live.dropped):
            refusal = context.gate.handshake(address, now)
        if refusal is not None:
            refuse_admission(context, None, refusal, address)
            finish(sock, b"")
            return
        data = read(sock)
        if data is None or data.startswith(HANDSHAKE):
            self._adopt(sock, peer, data or b"")
        else:
            finish(sock, UNEXPECTED_MESSAGE)
            record_departure(context, address)

    def _protocol(self, peer: Address) -> Protocol:
        client = self._live.trust.derive(peer[0], ())
        return self._tls.wrap(super()._protocol(peer), peer[0] if client is None else client.key)


class TlsAcceptReactor(AcceptReactor):
    """Takes the place of an endpoint's reactor, so that what Twisted's parser takes for ``tcp:`` speaks TLS."""

    def __init__(self, reactor: Any, certificates: CertificateStore, inherited: AnySocket | None = None) -> None:
        super().__init__(reactor, inherited)
        self._certificates = certificates

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:  # noqa: N802
        """Open an `Acceptor`, or a port of Twisted's for other factories, with our TLS. Raises `CannotListenError`."""
        if not isinstance(factory, HttpFactory) or not self.fit(self._reactor):
            tls = TlsFactory(self._certificates, factory, _queue_of(factory, self._reactor))
            reactor = self._reactor if self._inherited is None else AdoptingReactor(self._reactor, self._inherited)
            return reactor.listenTCP(port, tls, backlog, interface)
        handler = TlsSocketHandler(self._reactor, factory, self._certificates)
        acceptor = Acceptor(self._reactor, port, factory, backlog, interface, handler, self._inherited)
        acceptor.startListening()
        return acceptor


def _queue_of(factory: object, reactor: Any) -> FairQueue:
    """Return the queue that a listener shares with others, or one of its own."""
    shared = factory.context.fair_queue if isinstance(factory, HttpFactory) else None
    return own_queue(reactor) if shared is None else shared
