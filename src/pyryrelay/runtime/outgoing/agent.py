"""An HTTP client of the relay: an `IAgent` whose connections are few, bounded, and closed for certain.

Twisted's client is imported when it is first used, because few relays make requests of their own. Of each answer, at
most `MAX_ANSWER_BYTES` are received, header and body together; the connection is cut off otherwise. Connections are
always cut off rather than closed, because a TLS peer could delay an orderly end for ever. Certificates are checked
against those that the machine trusts. Times are seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.web.client import HTTPConnectionPool
    from twisted.web.iweb import IAgent

__all__ = ["MAX_ANSWER_BYTES", "BoundedConnection", "OutgoingHttp"]

MAX_ANSWER_BYTES: Final = 65_536
CONNECT_TIMEOUT_S: Final = 5.0
IDLE_S: Final = 60
MAX_IDLE_CONNECTIONS: Final = 4


class BoundedConnection(ProtocolWrapper):
    """A connection that is cut off if more than `MAX_ANSWER_BYTES` arrive after something was sent."""

    _received_bytes = 0

    def write(self, data: bytes) -> None:
        """Send the beginning of a request, or more of it."""
        self._received_bytes = 0
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        """See `write`."""
        self._received_bytes = 0
        super().writeSequence(data)

    def dataReceived(self, data: bytes) -> None:
        """Receive a part of an answer."""
        room_bytes = MAX_ANSWER_BYTES - self._received_bytes
        self._received_bytes += len(data)
        # What fits is passed on, so that a reader of the body learns that it is too long.
        if room_bytes > 0:
            super().dataReceived(data[:room_bytes])
        if len(data) > room_bytes:
            self.abortConnection()

    def loseConnection(self) -> None:
        """Cut the connection off: it has served its purpose."""
        self.abortConnection()

    def stopProducing(self) -> None:
        """Cut the connection off: the rest of the answer is not wanted."""
        self.abortConnection()


class _BoundedFactory(WrappingFactory):
    """Wraps the connections of a client's factory."""

    noisy = False
    protocol = BoundedConnection

    def doStart(self) -> None:
        """Do nothing: the client's factory would log that it starts."""

    def doStop(self) -> None:
        """Do nothing: the client's factory would log that it stops."""


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    """An endpoint whose connections are `BoundedConnection`."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect, and return the protocol of ``factory``."""
        connecting: Deferred[Any] = self._endpoint.connect(_BoundedFactory(factory))
        return connecting.addCallback(_unwrapped)


def _unwrapped(connection: BoundedConnection) -> IProtocol:
    found: IProtocol = connection.wrappedProtocol
    return found


class OutgoingHttp:
    """The HTTP client of one relay, made when it is first needed."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool: HTTPConnectionPool | None = None
        self._agent: IAgent | None = None

    def agent(self) -> IAgent:
        """Return the client. It follows no redirects, and keeps idle connections for a minute."""
        if self._agent is None:
            self._agent = self._make()
        return self._agent

    def _make(self) -> IAgent:
        from twisted.web.client import Agent, HTTPConnectionPool

        self._pool = pool = HTTPConnectionPool(self._reactor)
        pool.cachedConnectionTimeout = IDLE_S
        pool.maxPersistentPerHost = MAX_IDLE_CONNECTIONS
        agent: IAgent = Agent.usingEndpointFactory(self._reactor, _endpoints(self._reactor), pool)
        return agent

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        pool, self._pool, self._agent = self._pool, None, None
        return succeed(None) if pool is None else pool.closeCachedConnections()


def _endpoints(reactor: Any) -> Any:
    from twisted.web.client import URI
    from twisted.web.iweb import IAgentEndpointFactory

    from pyryrelay.runtime.outgoing.tls import ClientTls, client_context

    @implementer(IAgentEndpointFactory)
    class Endpoints:
        """Where a URL is connected to."""

        def endpointForURI(self, uri: URI) -> _BoundedEndpoint:
            """Return the endpoint for a URL. Raises `ValueError` for others than HTTP and HTTPS."""
            if uri.scheme not in (b"http", b"https"):
                raise ValueError("only http and https are spoken")
            endpoint: Any = HostnameEndpoint(reactor, uri.host, uri.port, timeout=CONNECT_TIMEOUT_S)
            if uri.scheme == b"https":
                endpoint = wrapClientTLS(ClientTls(client_context(), uri.host.decode("ascii")), endpoint)
            return _BoundedEndpoint(endpoint)

    return Endpoints()
