"""One answer to a connection that is not upgraded, and the orderly end of the connection.

Closing a socket while it holds unread bytes sends a reset, and a reset destroys the part of an answer that the peer has
not read yet. So the write side is ended first, behind the answer. What the peer still sends, such as the rest of a
body, is read and discarded until the peer ends its own side, or for `LINGER_S`, or up to `DISCARD_BYTES`. Beyond that
nothing is read any more, and the rest of the time is left to the peer to read its answer.

An application may give its answer later, within `ANSWER_TIMEOUT_S`. If the connection is lost before that, or the relay
shuts down, the application's Deferred is cancelled. A peer that only ends its write side meanwhile, as ``nc -N`` does,
is still answered. (Over TLS it has left.)

Invariants: a connection is answered at most once, and is closed by us if its peer does not close it.

Sizes are bytes, times are seconds of a monotonic clock.
"""

from __future__ import annotations

import socket
from typing import Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection as TcpConnection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer, noLongerProvides

from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.plain_requests import PendingAnswer, application_response
from pyryrelay.http.refusals import ResponseBytes, refuse
from pyryrelay.protocol import HttpAnswer, RepeatedHeaderError
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.runtime.transports import IStreamTransport, end_writing, socket_transport
from pyryrelay.runtime.twisted_internals import unsent_bytes
from pyryrelay.websocket.outbox.half_close import end_socket_writing

_log = Logger(namespace="pyryrelay")

LINGER_S: Final = 2.0
"""How long an answered peer may take to read its answer and close, beyond the last `PROGRESS_BYTES` that it took."""
PROGRESS_BYTES: Final = 16_384
"""What a peer must take of a large answer within `LINGER_S`, to be given as much time again."""
DISCARD_BYTES: Final = 65_536
"""How much is discarded of what follows a request."""
ANSWER_TIMEOUT_S: Final = 10.0
"""How long an application may take to answer a request."""


@implementer(IPullProducer)
class AnsweringConnection(Protocol):
    """A connection that gives one answer. Subclasses read the request, and decide about it."""

    transport: IStreamTransport
    wheel_slot: int | None = None
    _context: ListenerContext
    _is_decided = False  # an answer was given or is awaited, or the connection was dropped
    _pending: PendingAnswer | None = None
    _has_peer_ended = False  # its write side, while it waits for an answer
    _discarded_bytes = 0
    _unsent_bytes = 0
    _is_closing = False

    def _answer(self, answer: ResponseBytes, *, lingers: bool = True) -> None:
        """Give the one answer; an empty one drops the connection.

        Without ``lingers`` the connection is closed as soon as its answer is sent.
        """
        transport, self._is_decided = self.transport, True
        self._take_pending()
        if not answer:
            transport.abortConnection()
            return
        # Nothing more can come from a peer that has ended its side, not even its end.
        lingers = lingers and not self._has_peer_ended
        self._unsent_bytes = len(answer)
        self._context.wheel.arm(self, self._context.now() + LINGER_S)
        if not lingers:
            transport.write(answer)
            transport.loseConnection()
            return
        plain = transport.getHandle() if isinstance(transport, TcpConnection) else None
        if plain is not None and not (answer := answer[_sent_at_once(plain, answer) :]):
            end_socket_writing(plain)
            return
        transport.write(answer)
        if _unsent_bytes(transport):
            # The peer's end, which may have been received already, would discard what is not sent.
            transport.pauseProducing()
            transport.registerProducer(self, False)
        else:
            end_writing(transport)

    # IPullProducer: the transport calls these, the first one also when it is registered.

    def resumeProducing(self) -> None:
        """End the write side if the whole answer was sent, and discard what comes from then on."""
        transport = self.transport
        if not _unsent_bytes(transport):
            transport.unregisterProducer()
            end_writing(transport)
            transport.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: the connection is lost, and `connectionLost` follows."""

    def _discard(self, size: int) -> None:
        """Discard bytes that follow a request."""
        self._discarded_bytes += size
        if self._discarded_bytes > DISCARD_BYTES:
            self.transport.pauseProducing()

    # Answers of applications that come later

    def _answer_when_ready(self, pending: PendingAnswer) -> None:
        """Wait for the answer of an application, and give it."""
        self._is_decided = True
        self._pending = pending
        alsoProvides(self, IHalfCloseableProtocol)
        self._context.wheel.arm(self, self._context.now() + ANSWER_TIMEOUT_S)
        pending.answer.addCallback(self._application_answered).addErrback(self._application_failed)

    def _application_answered(self, answer: HttpAnswer) -> None:
        pending = self._pending
        if pending is not None:
            self._answer(application_response(self._context, pending.route, pending.request, answer))

    def _application_failed(self, failure: Failure) -> None:
        pending = self._pending
        if pending is None:
            return  # it was cancelled
        if failure.check(RepeatedHeaderError):
            client = pending.request.client
            answer = refuse(self._context, pending.route, 400, RefusalWord.REPEATED_HEADER, client)
        else:
            _log.failure("A request could not be answered", failure)
            answer = refuse(self._context, None, 500, RefusalWord.INTERNAL_ERROR, None)
        self._answer(answer)

    # IHalfCloseableProtocol, which is provided while an answer is awaited

    def readConnectionLost(self) -> None:
        """Go on: the peer has ended its write side. It may have left, which is noticed when it is answered."""
        self._has_peer_ended = True

    def writeConnectionLost(self) -> None:
        """Do nothing: we have ended our write side."""

    def _cancel_pending(self) -> None:
        """Tell the application that its answer is not needed any more."""
        pending = self._take_pending()
        if pending is not None:
            cancel(pending)

    def _take_pending(self) -> PendingAnswer | None:
        """Return the answer that is awaited, and await it no longer."""
        pending, self._pending = self._pending, None
        if pending is not None:
            noLongerProvides(self, IHalfCloseableProtocol)
        return pending

    # Ending

    def deadline_reached(self, now: float) -> None:
        """The application has not answered in time, or the answered peer has not closed in time."""
        pending = self._pending
        if pending is None:
            self._close_or_wait()
        else:
            self._cancel_pending()
            # It is not the client's fault, so the refusal does not name it.
            self._answer(refuse(self._context, pending.route, 503, RefusalWord.SLOW_ANSWER, None))

    def _close_or_wait(self) -> None:
        """Close the connection, unless its peer takes a large answer piece by piece."""
        context, transport = self._context, self.transport
        unsent_before, self._unsent_bytes = self._unsent_bytes, _unsent_bytes(transport)
        if self._is_closing or self._unsent_bytes > max(0, unsent_before - PROGRESS_BYTES):
            transport.abortConnection()
        elif self._unsent_bytes:
            context.wheel.arm(self, context.now() + LINGER_S)
        else:
            self._is_closing = True
            context.wheel.arm(self, context.now())
            # The connection may be lost before this returns.
            socket_transport(transport).loseConnection()

    def shut_down(self) -> None:
        """End the connection without waiting for its peer: close it if its whole answer was sent, else cut it off."""
        if self._is_decided and self._pending is None and not _unsent_bytes(self.transport):
            socket_transport(self.transport).loseConnection()
        else:
            self._cancel_pending()
            self._answer(b"")


def _sent_at_once(plain: socket.socket, answer: bytes) -> int:
    """Send what a socket takes, and return its size. Waiting for the next turn of the reactor would cost more."""
    try:
        return plain.send(answer)
    except OSError:
        return 0  # the peer has gone, or the socket is full; the transport finds out


def _unsent_bytes(transport: IStreamTransport) -> int:
    """Return how much of an answer the kernel has not taken yet, as far as that is known."""
    bottom = socket_transport(transport)
    return unsent_bytes(bottom) if isinstance(bottom, TcpConnection) else 0


def cancel(pending: PendingAnswer) -> None:
    """Cancel an answer that is not needed any more; a fault of the application in doing so is logged."""
    try:
        pending.answer.cancel()
    except Exception:
        _log.failure("An application failed")
