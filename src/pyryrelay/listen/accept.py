"""The listening socket of ``tcp:`` and ``ssl:`` endpoints, which accepts without one of Twisted's ports.

What becomes of an accepted socket is decided by a `SocketHandler`.

Invariants: a turn of the reactor accepts at most `BATCH` connections, so that a flood keeps other peers waiting for a
few milliseconds only. In a flood, connections are accepted by the clock (`pyryrelay.listen.accept_pacing`). No failure
to accept ends the listening, and none makes it spin.

With ``TCP_DEFER_ACCEPT`` the kernel keeps a connection to itself until its first bytes are there. Linux counts in
repeated SYN-ACKs (after 1, 3, 7, ... s) and rounds up. A connection that is still silent then is accepted after all,
and an `HttpConnection` ends it in its own time. Under SYN cookies nothing is deferred.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pyryrelay.http.connection import HttpFactory
from pyryrelay.listen.accept_pacing import PACING_INTERVAL_S, AcceptPacing
from pyryrelay.listen.exhaustion import PAUSE_S, Exhaustion
from pyryrelay.listen.socket_handler import SocketHandler
from pyryrelay.listen.sockets import EXHAUSTED, PASSING, Address, AnySocket, Listening, Socket, listening_socket

__all__ = ["BATCH", "AcceptReactor", "Acceptor"]

_log = Logger(namespace="pyryrelay")

BATCH: Final = 32
"""Connections accepted in one turn of the reactor: about a millisecond of refusals, or a few of upgrades."""


@implementer(IListeningPort, IReadDescriptor)
class Acceptor:
    """See the module's docstring. The reactor must provide `IReactorFDSet` and `IReactorTime`."""

    socket: Listening | None = None

    def __init__(
        self,
        reactor: Any,
        port: int,
        factory: HttpFactory,
        backlog: int = 50,
        interface: str = "",
        handler: SocketHandler | None = None,
        inherited: AnySocket | None = None,
    ) -> None:
        """Create an acceptor; ``handler`` takes over its sockets, by default one for plain TCP.

        It listens on the ``inherited`` socket, if there is one.
        """
        self._reactor = reactor
        self._port = port
        self.factory = factory
        self._backlog = backlog
        self._interface = interface
        self._context = factory.context
        self.handler = SocketHandler(reactor, factory) if handler is None else handler
        self._handle = self.handler.handle
        self._take: Callable[[Socket, Address], None] = self.receive
        # As many as there were the last time: finding out that no more wait costs as much as accepting one.
        self._most = 1
        self._pacing = AcceptPacing()
        self._is_read = False
        self._is_paused = False
        self._inherited = inherited
        self._next: Any = None
        self._exhaustion = Exhaustion(factory.context.now)

    # IListeningPort

    def startListening(self) -> None:
        """Bind, listen, and accept from the next turn on. Raises `CannotListenError`."""
        if self._inherited is not None:
            self.socket = Listening.adopt(self._inherited)
        else:
            try:
                self.socket = listening_socket(self._port, self._interface, self._backlog, self._context.head_timeout_s)
            except OSError as error:
                raise CannotListenError(self._interface, self._port, error) from error
        self.factory.doStart()
        self._accept_whenever()
        _log.info("Acceptor starting on {endpoint}", endpoint=self.socket.getsockname()[1])

    def stopListening(self) -> Deferred[None]:
        """Stop. Connections that have not been accepted yet are reset. Stopping twice is the same as stopping once."""
        self._close()
        return succeed(None)

    def _close(self) -> None:
        if self.socket is None:
            return
        self._accept_in(None)
        self.socket.close()
        self.socket = None
        self.factory.doStop()

    def pause(self) -> None:
        """Leave all connections in the kernel's queue, for another process that has the socket, or for later."""
        self._is_paused = True
        if self.socket is not None:
            self._accept_in(None)

    def resume(self) -> None:
        """Accept again."""
        self._is_paused = False
        if self.socket is not None and not self._is_read and self._next is None:
            self._accept_whenever()

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return where it listens; call it only while it does."""
        assert self.socket is not None
        family = IPv6Address if self.socket.family == socket.AF_INET6 else IPv4Address
        return family("TCP", *self.socket.getsockname())

    # IReadDescriptor

    def fileno(self) -> int:
        """Return the listening socket's descriptor; -1 if there is none."""
        return -1 if self.socket is None else self.socket.fileno()

    def logPrefix(self) -> str:
        """Return the name under which the reactor logs failures."""
        return "Acceptor"

    def connectionLost(self, reason: Failure) -> None:
        """Stop, because the reactor ends."""
        self._close()

    def doRead(self) -> None:
        """Accept the connections that wait, up to `BATCH`. The reactor, or a timer, calls again if there are more.

        Upgrades are answered at the end. An answer wakes up its peer, which on the same machine takes as long as a part
        of the next upgrade. And a peer may leave and connect again at once; before it is accepted again, the relay must
        know that it has left. What other workers serve is given to them at the end, too, together.
        """
        callbacks, accepted = self._context.callbacks, 0
        callbacks.begin_batch()
        try:
            accepted = self._accept()
        finally:
            try:
                self._go_on(accepted)
            finally:
                callbacks.end_batch()

    def _accept(self) -> int:
        """Accept the connections that wait, up to a bound, and return how many there were."""
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
            self._take(sock, address)
        self._most = min(BATCH, 2 * most)
        return most

    def _go_on(self, accepted: int) -> None:
        """Schedule the next call, after so many connections have been accepted."""
        pacing = self._pacing
        pacing.accepted(accepted, self._context.now())
        if self.socket is None or self._next is not None or self._is_paused:
            return
        if pacing.is_on:
            self._accept_in(PACING_INTERVAL_S if accepted < BATCH else 0)
        elif not self._is_read:
            self._accept_whenever()

    def _accept_whenever(self) -> None:
        """Have the reactor call when a connection waits."""
        self._is_read = True
        self._reactor.addReader(self)

    def _accept_in(self, seconds: float | None) -> None:
        """Leave connections in the kernel's queue for so long; None is for ever."""
        if self._is_read:
            self._is_read = False
            self._reactor.removeReader(self)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if seconds is not None:
            self._next = self._reactor.callLater(seconds, self._accept_again)

    def _accept_again(self) -> None:
        """Accept what was left in the queue."""
        self._next = None
        if self._pacing.is_on:
            self.doRead()
        else:
            self._accept_whenever()

    # One connection

    def pass_on(self, is_passed: Callable[[Socket, Address], bool]) -> None:
        """Ask about each connection that is accepted here whether another process gets it, and close it here then."""

        def take(sock: Socket, peer: Address) -> None:
            if is_passed(sock, peer):
                sock.close()
            else:
                self.receive(sock, peer)

        self._take = take

    def receive(self, sock: Socket, peer: Address) -> None:
        """Take over a connection that was accepted, here or elsewhere."""
        try:
            self._handle(sock, peer)
        except Exception as error:
            self._failed(sock, error)

    # Failures

    def _failed(self, sock: Socket, error: Exception) -> None:
        """End a connection that could not be handled, and nothing else."""
        sock.close()
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            self._stop_for_now(error)
        else:
            _log.failure("A connection could not be accepted", Failure(error))

    def _stop_for_now(self, error: Exception) -> None:
        """Leave connections in the queue for a while: trying again at once would keep the process busy in vain."""
        self._accept_in(PAUSE_S)
        self._exhaustion.tell(error)


class AcceptReactor:
    """Takes the place of an endpoint's reactor, so that Twisted's own parser of endpoints opens an `Acceptor`."""

    def __init__(self, reactor: Any, inherited: socket.socket | None = None) -> None:
        """Listen on the ``inherited`` socket, if there is one."""
        self._reactor = reactor
        self._inherited = inherited

    @staticmethod
    def fit(reactor: object) -> bool:
        """Tell whether an `Acceptor` can run under this reactor."""
        return hasattr(socket, "MSG_DONTWAIT") and IReactorFDSet.providedBy(reactor)

    def listenTCP(self, port: int, factory: HttpFactory, backlog: int = 50, interface: str = "") -> Acceptor:  # noqa: N802
        """Open an `Acceptor`. Raises `CannotListenError`."""
        acceptor = Acceptor(self._reactor, port, factory, backlog, interface, inherited=self._inherited)
        acceptor.startListening()
        return acceptor
