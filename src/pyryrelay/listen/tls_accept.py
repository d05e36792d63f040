"""The door of ``ssl:`` endpoints, which refuses before there is any TLS: a handshake is what costs most.

What is refused here is reset. Nothing can be read or answered without a handshake, so the quotas of upgrades and of
requests are the entrance's, and so are the denied, who are owed an answer within the quota of handshakes. What does not
begin as TLS does is told so, and no more.

As at any door, the kernel keeps a connection to itself until the first bytes are there, which in TLS are the client's.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions

from pyryrelay.guard import Reason
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.refusals import record_departure, refuse_admission
from pyryrelay.listen.accept import AcceptedConnection, Acceptor, AcceptReactor
from pyryrelay.listen.sockets import Address, Socket, finish, read
from pyryrelay.listen.tls import TlsFactory
from pyryrelay.runtime.fair_queue import FairQueue
from pyryrelay.websocket.factory import own_queue

__all__ = ["TlsAcceptReactor", "TlsAcceptor"]

HANDSHAKE: Final = b"\x16"
"""How TLS begins (RFC 8446 section 5.1)."""
UNEXPECTED_MESSAGE: Final = bytes.fromhex("15 0303 0002 02 0a")
"""The alert for whoever begins otherwise, as TLS 1.2 and 1.3 have it."""


class SendingConnection(AcceptedConnection):
    """A connection that sends at once where nothing waits, and not in the next turn of the reactor.

    By then the peer's end may have been read, and with it the connection, and what waited, would be lost.
    """

    _has_waiting = False

    def startWriting(self) -> None:  # noqa: N802
        """Something waits, or the end does."""
        self._has_waiting = True
        super().startWriting()

    def stopWriting(self) -> None:  # noqa: N802
        """All of it is sent."""
        self._has_waiting = False
        super().stopWriting()

    def write(self, data: bytes) -> None:
        """Give the socket what it takes, and keep the rest. What is wrong with it is found out by reading."""
        if not self._has_waiting and self.connected:
            with contextlib.suppress(OSError):
                data = data[self.socket.send(data) :]
        if data:
            super().write(data)


class TlsAcceptor(Acceptor):
    """See the module's docstring."""

    connection = SendingConnection

    def __init__(
        self,
        reactor: Any,
        port: int,
        factory: HttpFactory,
        backlog: int,
        interface: str,
        options: CertificateOptions,
    ) -> None:
        """``options`` have the key and the certificates."""
        super().__init__(reactor, port, factory, backlog, interface)
        self._tls = TlsFactory(options, factory, _queue_of(factory, reactor))

    def _receive(self, sock: Socket, peer: Address) -> None:
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

    def _protocol(self, address: Address) -> Protocol:
        client = self._live.trust.derive(address[0], ())
        return self._tls.wrap(super()._protocol(address), address[0] if client is None else client.key)


class TlsAcceptReactor(AcceptReactor):
    """Stands in for the reactor that an ``ssl:`` endpoint is given, so that Twisted's parser opens a `TlsAcceptor`."""

    def listenSSL(  # noqa: N802
        self,
        port: int,
        factory: Any,
        contextFactory: CertificateOptions,  # noqa: N803
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        """Open a door, or a port of Twisted's with our TLS for factories that need one. Raises `CannotListenError`."""
        if not isinstance(factory, HttpFactory) or not self.fit(self._reactor):
            tls = TlsFactory(contextFactory, factory, _queue_of(factory, self._reactor))
            opened: IListeningPort = self._reactor.listenTCP(port, tls, backlog, interface)
            return opened
        acceptor = TlsAcceptor(self._reactor, port, factory, backlog, interface, contextFactory)
        acceptor.startListening()
        return acceptor


def _queue_of(factory: object, reactor: Any) -> FairQueue:
    """The queue that a listener shares with the others, or one of its own."""
    shared = factory.context.fair_queue if isinstance(factory, HttpFactory) else None
    return own_queue(reactor) if shared is None else shared
