"""The entrance: one bounded request head from every accepted connection, in bounded time, then one of three ways on.

A head goes to a page (`/healthz`), to the WebSocket protocol of a mounted application, or is refused from canned
bytes; `pyryrelay.http.routing` says which. Where a listener is behind a proxy that speaks the PROXY protocol, its
header is read first, and the connection is then that of the source it names. Invariants: a connection that is not
upgraded holds one handshake lease from accept until it is lost, answers at most once, and is closed by us if its peer
does not close.

Sizes are bytes, times are seconds of a monotonic clock.
"""

from __future__ import annotations

from time import perf_counter

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pyryrelay.guard import ClientAddress, Lease, Refusal
from pyryrelay.http import message
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.proxy_header import ProxyHeaderError, ProxyHeaderParser
from pyryrelay.http.refusals import record_departure, refuse, refuse_arrival, refuse_unread
from pyryrelay.http.routing import Upgrade, decide
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.runtime.transports import IStreamTransport, socket_transport
from pyryrelay.runtime.twisted_internals import replace_protocol
from pyryrelay.websocket.connection import Connection
from pyryrelay.websocket.guarded import peer_host

_log = Logger()

READ_ON_BYTES = 4 * message.MAX_HEAD_BYTES
"""How much of a head that is too large is read behind a proxy, whose own fields may stand at its end."""
MAX_BELOW_BYTES = 65536
"""What TLS may need beside the request: a handshake with the longest certificate and key is a tenth of it."""
LINGER_S = 2.0
"""How long a refused peer may take to read its answer and close."""


class HttpConnection(Protocol):
    """One accepted connection until it is upgraded; afterwards its transport speaks to the WebSocket protocol."""

    transport: IStreamTransport
    wheel_slot: int | None = None
    _early_answer = b""
    _lease: Lease | None = None
    _peer: str | None = None
    _proxy_header: ProxyHeaderParser | None = None
    _websocket: Connection | None = None
    _answered = False
    _below_bytes = 0

    def __init__(self, context: ListenerContext) -> None:
        self._context = context
        self._received = bytearray()

    # Arriving

    def connectionMade(self) -> None:
        """Take a handshake lease, or prepare to refuse as soon as there is a request to answer."""
        context = self._context
        context.waiting.add(self)
        context.wheel.arm(self, context.now() + context.head_timeout_s)
        self._peer = peer_host(self.transport.getPeer())
        if context.callbacks.accepted is not None:
            context.callbacks.accepted(socket_transport(self.transport))
        if context.proxy_protocol:
            if not context.live.trust.is_listed(self._peer):
                self._drop(RefusalWord.UNTRUSTED_PROXY, context.live.trust.derive(self._peer, ()))
                return
            self._proxy_header = ProxyHeaderParser()
        self._arrive()

    def _address_without_head(self) -> ClientAddress | None:
        """Whom to count this connection for while its head is not there; None where the peer speaks for many."""
        trust = self._context.live.trust
        if self._proxy_header is not None or self._context.behind_proxy_protocol:
            return None
        return None if self._peer is None or trust.is_proxy(self._peer) else trust.derive(self._peer, ())

    def _arrive(self) -> None:
        """Ask the gate about a connection whose peer has just become known."""
        context, address = self._context, self._address_without_head()
        self._release()
        outcome = context.gate.arrive(address, context.now())
        if isinstance(outcome, Lease):
            self._lease = outcome
            return
        self._early_answer = refuse_arrival(context, outcome, address, len(context.waiting))
        if not self._early_answer:
            self._answer(b"")
            return
        # An answer that is sent before the request was read is lost in the reset that unread bytes cause.
        context.wheel.arm(self, context.now() + min(LINGER_S, context.head_timeout_s))

    def _read_proxy_header(self, parser: ProxyHeaderParser, data: bytes) -> bytes:
        """Take what belongs to the PROXY header; what follows it. The connection is then that of its source."""
        try:
            header = parser.feed(data)
        except ProxyHeaderError:
            # The proxy's fault, and no mark against whoever is behind it.
            self._drop(RefusalWord.BAD_PROXY_HEADER, None)
            return b""
        if header is None:
            return b""
        self._proxy_header = None
        if header.source is not None:
            self._peer = header.source
        self._arrive()
        return parser.rest

    # The head

    def received_below(self, size: int, records: int) -> None:
        """So many bytes were no plaintext; who sends little else wants no more than keep us busy."""
        self._below_bytes += size
        if self._below_bytes > MAX_BELOW_BYTES and not self._answered:
            self._left_early()
            self._answer(b"")

    def dataReceived(self, data: bytes) -> None:
        """Collect the head; hand it on when it is complete."""
        if self._proxy_header is not None and not self._answered:
            data = self._read_proxy_header(self._proxy_header, data)
        if self._answered or not data:
            return
        if self._early_answer:
            self._answer(self._early_answer)
            return
        received = self._received
        searched = max(0, len(received) - len(message.HEAD_END) + 1)
        received += data
        if self._context.behind_proxy_protocol:
            self._peer = peer_host(self.transport.getPeer())
        end = received.find(message.HEAD_END, searched)
        if end < 0 and self._may_go_on():
            return
        if not 0 <= end <= message.MAX_HEAD_BYTES - len(message.HEAD_END):
            self._unreadable(end)
            return
        end += len(message.HEAD_END)
        raw, rest = bytes(received[:end]), bytes(received[end:])
        received.clear()
        self._head_complete(raw, rest)

    def _may_go_on(self) -> bool:
        """Whether the head that is not complete yet may become one, or the bounds of one may still be found."""
        received, context = self._received, self._context
        if len(received) <= message.MAX_HEAD_BYTES:
            return message.may_begin(received)
        return len(received) <= READ_ON_BYTES and context.live.trust.is_proxy(self._peer)

    def _unreadable(self, end: int) -> None:
        """Refuse what is no head, or too much of one; ``end`` is where its empty line begins, if that is there."""
        context, received = self._context, self._received
        raw = bytes(received[: end + len(message.HEAD_END)]) if end >= 0 else None
        if message.may_begin(received):
            self._answer(refuse_unread(context, raw, self._peer, 431, RefusalWord.HEAD_TOO_LARGE))
        else:
            self._answer(refuse_unread(context, raw, self._peer, 400, RefusalWord.BAD_HEAD))

    def _head_complete(self, raw: bytes, rest: bytes) -> None:
        began = perf_counter()
        try:
            self._decide(raw, rest)
        except Exception:
            _log.failure("A request could not be answered")
            if self._websocket is None:
                self._refuse(500, RefusalWord.INTERNAL_ERROR, None)
            else:
                # Behind a 101 an answer would be none.
                self._answer(b"")
        self._context.observer.decided(perf_counter() - began)

    def _decide(self, raw: bytes, rest: bytes) -> None:
        decision = decide(self._context, raw, self._peer)
        if isinstance(decision, Upgrade):
            self._upgrade(decision, rest)
        else:
            self._answer(decision)

    def _upgrade(self, upgrade: Upgrade, rest: bytes) -> None:
        self._context.wheel.cancel(self)
        self._context.waiting.discard(self)
        self._websocket = websocket = upgrade.factory.build(upgrade.request)
        self.dataReceived = websocket.dataReceived  # type: ignore[method-assign]
        websocket.upgrade(self.transport, upgrade.request, upgrade.key, rest)
        self._release()
        if websocket.refusal is not None:
            self._refused_after_all(websocket, websocket.refusal)
        else:
            replace_protocol(self.transport, websocket)
            self._context.callbacks.upgraded(websocket)

    def _refused_after_all(self, websocket: Connection, refusal: Refusal) -> None:
        """The authority said no to what was let through; it has answered and counted."""
        self._answered = True
        self._context.wheel.arm(self, self._context.now() + LINGER_S)
        self._context.observer.refused(websocket.route, refusal.status, refusal.reason, websocket.client)

    def take_denied(self, transport: IStreamTransport, websocket: Connection) -> None:
        """See to the end of a connection that was upgraded elsewhere and denied at the last moment."""
        self.transport, self._websocket = transport, websocket
        replace_protocol(transport, self)
        assert websocket.refusal is not None
        self._refused_after_all(websocket, websocket.refusal)

    # Answering

    def _refuse(self, status: int, reason: str, client: ClientAddress | None) -> None:
        self._answer(refuse(self._context, None, status, reason, client))

    def _drop(self, reason: str, client: ClientAddress | None) -> None:
        """Cut the connection off without an answer."""
        self._refuse(0, reason, client)

    def _answer(self, answer: bytes) -> None:
        """Give the one answer; an empty one cuts the connection off."""
        self._answered = True
        self._received.clear()
        if not answer:
            self.transport.abortConnection()
            return
        self.transport.write(answer)
        self.transport.loseConnection()
        self._context.wheel.arm(self, self._context.now() + LINGER_S)

    # Ending

    def deadline_reached(self, now: float) -> None:
        """The head did not come in time, or the answered peer does not close."""
        if self._received and not self._answered:
            self._refuse(408, RefusalWord.SLOW_HEAD, self._address_without_head())
        else:
            self._left_early()
            self._answer(b"")

    def shut_down(self) -> None:
        """Drop a connection that is not upgraded, without waiting for its head."""
        self._answer(b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave nothing behind."""
        self._context.wheel.cancel(self)
        self._context.waiting.discard(self)
        self._release()
        if self._websocket is not None:
            self._websocket.connectionLost(reason)
        else:
            self._left_early()

    def _left_early(self) -> None:
        """The connection ends before there was a request, unless it was refused for something else."""
        if not (self._answered or self._early_answer):
            self._answered = True
            record_departure(self._context, self._address_without_head(), has_begun=bool(self._received))

    def _release(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None


@implementer(IProtocolNegotiationFactory)
class HttpFactory(Factory):
    """Builds an `HttpConnection` for each accepted connection."""

    noisy = False

    def __init__(self, context: ListenerContext) -> None:
        self.context = context

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may negotiate (RFC 7301): without this a client that offers anything fails its handshake."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> HttpConnection:
        """One for each connection; never None."""
        return HttpConnection(self.context)
