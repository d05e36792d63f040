"""An accepted connection until it is upgraded: one bounded request head in bounded time, then an upgrade or an answer.

`pyryrelay.http.routing` decides about the head. An upgraded connection belongs to the WebSocket protocol of a mounted
application; all others end as `pyryrelay.http.answering` says. If a listener is behind a proxy that speaks the PROXY
protocol, its header is read first, and the connection then counts as one from the source that the header names.

Invariants: a connection that is not upgraded holds one handshake lease from accept until it is lost, unless the gate
refused it one. One that another process has admitted holds the lease that it came with instead.

Sizes are bytes, times are seconds of a monotonic clock.
"""

from __future__ import annotations

from time import perf_counter

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.guard import ClientAddress, Lease, Refusal
from pyryrelay.http import message
from pyryrelay.http.answering import LINGER_S, cancel
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.placing import PlacingConnection
from pyryrelay.http.plain_requests import PendingAnswer
from pyryrelay.http.proxy_protocol.proxy_header import ProxyHeaderError, ProxyHeaderParser
from pyryrelay.http.refusals import ResponseBytes, record_departure, refuse, refuse_arrival, refuse_unread
from pyryrelay.http.routing import Upgrade, decide
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.runtime.transports import IStreamTransport, socket_transport
from pyryrelay.runtime.twisted_internals import replace_protocol
from pyryrelay.websocket.connection import Connection
from pyryrelay.websocket.guarded import HeldLease, peer_host

_log = Logger(namespace="pyryrelay")

READ_ON_BYTES = 4 * message.MAX_HEAD_BYTES
"""How much of a head that is too large is read behind a proxy, whose own fields may stand at its end."""
MAX_BELOW_BYTES = 65536
"""What TLS may need besides the request: a handshake with the longest certificate and key is a tenth of it."""


class HttpConnection(PlacingConnection):
    """One accepted connection until it is upgraded; then its transport calls the WebSocket protocol."""

    _early_answer = b""
    _lease: HeldLease | None = None
    _is_admitted = False  # by another process
    _proxy_header: ProxyHeaderParser | None = None
    _websocket: Connection | None = None
    _below_bytes = 0

    def __init__(self, context: ListenerContext, lease: HeldLease | None = None) -> None:
        """Create a connection; a ``lease`` was taken by another process, which has read the head, too."""
        self._context = context
        self._received = bytearray()
        if lease is not None:
            self._lease, self._is_admitted = lease, True

    # Arriving

    def connectionMade(self) -> None:
        """Take a handshake lease, or prepare to refuse as soon as there is a request to answer."""
        context = self._context
        context.waiting.add(self)
        context.wheel.arm(self, context.now() + context.head_timeout_s)
        self._peer = peer_host(self.transport.getPeer())
        if context.callbacks.accepted is not None:
            context.callbacks.accepted(socket_transport(self.transport))
        if self._is_admitted:
            return
        if context.proxy_protocol:
            if not context.live.trust.is_listed(self._peer):
                self._drop(RefusalWord.UNTRUSTED_PROXY, context.live.trust.derive(self._peer, ()))
                return
            self._proxy_header = ProxyHeaderParser()
        self._arrive()

    def _address_without_head(self) -> ClientAddress | None:
        """Return the client that this connection counts for before its head is read; None if the peer is a proxy."""
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
        # The answer waits for a request: clients read none before they have sent theirs.
        context.wheel.arm(self, context.now() + min(LINGER_S, context.head_timeout_s))

    def _answer_early(self) -> None:
        """Give the answer of a connection that holds no lease. It does not linger: nothing bounds their number."""
        self._answer(self._early_answer, lingers=False)

    def _read_proxy_header(self, parser: ProxyHeaderParser, data: bytes) -> bytes:
        """Take the bytes that belong to the PROXY header, and return those behind it."""
        try:
            header = parser.feed(data)
        except ProxyHeaderError:
            # It is the proxy's fault, and its client is not known yet.
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
        """Count bytes that were no plaintext; a peer that sends little else only keeps us busy, and is dropped."""
        self._below_bytes += size
        if self._below_bytes > MAX_BELOW_BYTES and not self._is_decided:
            self._left_early()
            self._answer(b"")

    def dataReceived(self, data: bytes) -> None:
        """Collect the head, and decide about it when it is complete."""
        if self._proxy_header is not None and not self._is_decided:
            data = self._read_proxy_header(self._proxy_header, data)
        if self._is_decided:
            if self._is_placing():
                self._keep(data)
            else:
                self._discard(len(data))
            return
        if not data:
            return
        if self._early_answer:
            self._answer_early()
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
        """Tell whether the head that is not complete may become one, or its end may still be found."""
        received, context = self._received, self._context
        if len(received) <= message.MAX_HEAD_BYTES:
            return message.may_begin(received)
        return len(received) <= READ_ON_BYTES and context.live.trust.is_proxy(self._peer)

    def _unreadable(self, end: int) -> None:
        """Refuse what is no head, or too much of one; ``end`` is where its empty line begins, if that is there."""
        context, received = self._context, self._received
        raw = bytes(received[: end + len(message.HEAD_END)]) if end >= 0 else None
        may_begin = message.may_begin(received)
        received.clear()
        if may_begin:
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
                # There can be no HTTP answer behind a 101.
                self._answer(b"")
        self._context.observer.decided(perf_counter() - began)

    def _decide(self, raw: bytes, rest: bytes) -> None:
        server_name = getattr(self.transport, "server_name", None) if self._context.live.hosts else None
        decision = decide(self._context, raw, self._peer, server_name=server_name)
        if isinstance(decision, Upgrade):
            self._place(decision, raw, rest)
        elif isinstance(decision, PendingAnswer):
            self._answer_when_ready(decision)
        else:
            self._answer(decision)

    def take_answer(self, answer: ResponseBytes | PendingAnswer) -> None:
        """Give the answer to a request that was read and decided about elsewhere; call it after `makeConnection`."""
        if self._lease is None:
            # The gate did not know that it would refuse this connection when it was asked before the request was read.
            if isinstance(answer, PendingAnswer):
                cancel(answer)
            if not self._is_decided:
                self._answer_early()
        elif isinstance(answer, PendingAnswer):
            self._answer_when_ready(answer)
        else:
            self._answer(answer)

    def take_attempt(self, upgrade: Upgrade, head: bytes, rest: bytes) -> None:
        """Place an upgrade that was read and decided about elsewhere; call it after `makeConnection`."""
        if self._lease is not None:
            self._place(upgrade, head, rest)
            return
        self.give_up(upgrade)
        if not self._is_decided:
            self._answer_early()

    def another(self) -> HttpConnection:
        """Return a new connection, for the same socket under another transport."""
        return HttpConnection(self._context)

    # Upgrading

    def _upgrade(self, upgrade: Upgrade, rest: bytes) -> None:
        self._context.wheel.cancel(self)
        self._context.waiting.discard(self)
        self._websocket = websocket = upgrade.factory.build(upgrade.request, upgrade.lease)
        self._let_go(upgrade.lease)
        self.dataReceived = websocket.dataReceived  # type: ignore[method-assign]
        websocket.upgrade(self.transport, upgrade.request, upgrade.key, rest)
        self._release()
        if websocket.refusal is not None:
            self._denied(websocket, websocket.refusal)
        else:
            replace_protocol(self.transport, websocket)
            self._context.callbacks.upgraded(websocket)

    def _denied(self, websocket: Connection, refusal: Refusal) -> None:
        """End a connection that was let pass and then denied; the WebSocket protocol has answered and counted."""
        self._is_decided = True
        self._context.wheel.arm(self, self._context.now() + LINGER_S)
        self._context.observer.refused(websocket.route, refusal.status, refusal.reason, websocket.client)

    def take_denied(self, transport: IStreamTransport, websocket: Connection) -> None:
        """End a connection that was upgraded elsewhere and then denied."""
        self.transport, self._websocket = transport, websocket
        replace_protocol(transport, self)
        assert websocket.refusal is not None
        self._denied(websocket, websocket.refusal)

    # Refusing and ending

    def _refuse(self, status: int, reason: RefusalWord, client: ClientAddress | None) -> None:
        self._answer(refuse(self._context, None, status, reason, client))

    def _drop(self, reason: RefusalWord, client: ClientAddress | None) -> None:
        """Refuse, and cut the connection off without an answer."""
        self._refuse(0, reason, client)

    def deadline_reached(self, now: float) -> None:
        """The head was not complete in time, or see `AnsweringConnection`."""
        if self._is_decided:
            super().deadline_reached(now)
        elif self._received:
            self._received.clear()
            self._refuse(408, RefusalWord.SLOW_HEAD, self._address_without_head())
        else:
            self._left_early()
            self._answer(b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Release everything that the connection held."""
        self._context.wheel.cancel(self)
        self._context.waiting.discard(self)
        self._release()
        self._give_up_waiting()
        if self._websocket is not None:
            self._websocket.connectionLost(reason)
        elif self._pending is not None:
            self._cancel_pending()
        else:
            self._left_early()

    def _left_early(self) -> None:
        """The connection ends before there was a request, unless it was refused for something else."""
        if not (self._is_decided or self._early_answer):
            self._is_decided = True
            record_departure(self._context, self._address_without_head(), has_begun=bool(self._received))

    def _let_go(self, lease: HeldLease | None) -> None:
        if self._lease is lease:
            self._lease = None

    def _release(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None


class HttpFactory(Factory):
    """Builds an `HttpConnection` for each accepted connection, and for those that another process has admitted."""

    noisy = False

    def __init__(self, context: ListenerContext) -> None:
        self.context = context

    def buildProtocol(self, addr: IAddress | None) -> HttpConnection:
        """Build one for each connection; never None."""
        return HttpConnection(self.context)

    def arrived(self, lease: HeldLease) -> HttpConnection:
        """Build one for a connection that another process has admitted, and holds the lease of."""
        return HttpConnection(self.context, lease)
