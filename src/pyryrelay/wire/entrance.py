"""The entrance: one bounded request head from every accepted connection, in bounded time, then one of three ways on.

A head goes to a page (`/healthz`), to the WebSocket protocol of a mounted application, or is refused from canned
bytes. Every refusal that can be known from the head is given here, in the order of the specification (quota, caps,
header gate), so that Autobahn only ever sees upgrades that will pass; it still asks the gate itself, which spends the
token. Invariants: a connection that is not upgraded holds one handshake lease from accept until it is lost, answers
at most once, and is closed by us if its peer does not close.

Sizes are bytes, times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol as Interface
from typing import cast

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pyryrelay.application import HttpRefusal, Page, RepeatedHeaderError, Request
from pyryrelay.guard import ClientAddress, Gate, Lease, Refusal, TrustPolicy
from pyryrelay.wire import http
from pyryrelay.wire.flow import IStreamTransport
from pyryrelay.wire.guarded import peer_host, refusal_fields
from pyryrelay.wire.websocket import RelayFactory, RelayProtocol
from pyryrelay.wire.wheel import Wheel

_log = Logger()

HEAD_TIMEOUT_S = 5.0
LINGER_S = 2.0
"""How long a refused peer may take to read its answer and close."""


class Observer(Interface):
    """Whoever counts and logs what is refused."""

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """An HTTP refusal was answered. ``route`` is the application's name, None off every mounted path."""


@dataclass(slots=True)
class EntranceConfig:
    """What all connections of one listener share. ``behind_proxy_protocol``: the peer is known with the head only."""

    gate: Gate
    trust: TrustPolicy
    routes: Mapping[str, RelayFactory]
    pages: Mapping[str, Callable[[], Page]]
    observer: Observer
    wheel: Wheel
    now: Callable[[], float]
    behind_proxy_protocol: bool = False
    head_timeout_s: float = HEAD_TIMEOUT_S
    draining: bool = False
    waiting: set[Entrance] = field(default_factory=set)
    """Connections that are not upgraded."""


class Entrance(Protocol):
    """One accepted connection until it is upgraded; afterwards a thin pipe to the WebSocket protocol."""

    transport: IStreamTransport
    wheel_slot: int | None = None
    _early_refusal: Refusal | None = None
    _lease: Lease | None = None
    _websocket: RelayProtocol | None = None
    _answered = False

    def __init__(self, config: EntranceConfig) -> None:
        self._config = config
        self._received = bytearray()

    def connectionMade(self) -> None:
        """Take a handshake lease, or prepare to refuse as soon as there is a request to answer."""
        config = self._config
        now = config.now()
        config.waiting.add(self)
        outcome = config.gate.arrive(self._address_at_accept(), now)
        if isinstance(outcome, Lease):
            self._lease = outcome
            config.wheel.arm(self, now + config.head_timeout_s)
            return
        self._early_refusal = outcome
        config.gate.record(outcome)
        config.observer.refused(None, outcome.status, outcome.reason, self._address_at_accept())
        if len(config.waiting) > 2 * config.gate.leases.limits.max_handshakes:
            # Not even an answer is owed to this many at once.
            self.transport.abortConnection()
            return
        # An answer that is sent before the request was read is lost in the reset that unread bytes cause.
        config.wheel.arm(self, now + min(LINGER_S, config.head_timeout_s))

    def _address_at_accept(self) -> ClientAddress | None:
        """Whom to count this connection for before its head is there; None where the peer speaks for many."""
        peer = peer_host(self.transport.getPeer())
        trust = self._config.trust
        if self._config.behind_proxy_protocol or peer is None or trust.is_proxy(peer):
            return None
        return trust.derive(peer, ())

    def dataReceived(self, data: bytes) -> None:
        """Collect the head; hand it on when it is complete."""
        if self._answered:
            return
        if self._early_refusal is not None:
            refusal = self._early_refusal
            self._answer(http.response(refusal.status, refusal_fields(refusal)))
            return
        received = self._received
        searched = max(0, len(received) - len(http.HEAD_END) + 1)
        received += data
        end = received.find(http.HEAD_END, searched)
        if end < 0 and len(received) <= http.MAX_HEAD_BYTES:
            return
        if not 0 <= end <= http.MAX_HEAD_BYTES - len(http.HEAD_END):
            self._refuse(None, 431, "head_too_large", self._address_at_accept())
            return
        end += len(http.HEAD_END)
        raw, rest = bytes(received[:end]), bytes(received[end:])
        received.clear()
        try:
            self._head_complete(raw, rest)
        except Exception:
            _log.failure("A request could not be answered")
            self._refuse(None, 500, "internal_error", None)

    def _head_complete(self, raw: bytes, rest: bytes) -> None:
        try:
            head = http.parse_head(raw)
        except http.HeadError as error:
            self._refuse(None, error.status, "bad_head", self._address_at_accept())
            return
        page = self._config.pages.get(head.path)
        if page is not None:
            self._answer_page(head, page)
        elif (factory := self._config.routes.get(head.path)) is not None:
            self._route(head, factory, rest)
        else:
            self._refuse(None, 404, "unknown_path", self._client(head))

    def _answer_page(self, head: http.Head, page: Callable[[], Page]) -> None:
        if head.method not in ("GET", "HEAD"):
            self._refuse(None, 405, "bad_method", self._client(head), ("Allow", "GET, HEAD"))
            return
        content = page()
        self._answer(http.response(content.status, content.fields, content.body, head_only=head.method == "HEAD"))

    def _route(self, head: http.Head, factory: RelayFactory, rest: bytes) -> None:
        """An attempt on an application's path: quota, caps, then everything else about it."""
        config, name = self._config, factory.application.name
        client = self._client(head)
        if config.draining:
            self._refuse(name, 503, "draining", client)
            return
        now = config.now()
        refusal = config.gate.peek(client, now)
        if refusal is not None:
            # As admit would: a cap is met after the quota, with the token spent.
            config.gate.spend(client, now)
            config.gate.record(refusal)
            self._refuse(name, refusal.status, refusal.reason, client, *refusal_fields(refusal))
            return
        # The gate refuses whoever cannot be named.
        request = Request(head.path, head.fields, cast(ClientAddress, client))
        problem = _problem(head, factory, request)
        if problem is not None:
            # An attempt is an attempt: what is wrong with it does not make it free.
            config.gate.spend(client, now)
            self._refuse(name, problem.status, problem.reason, client, *_FIELDS.get(problem.status, ()))
            return
        self._upgrade(factory, request, http.websocket_key(head) or "", rest)

    def _upgrade(self, factory: RelayFactory, request: Request, key: str, rest: bytes) -> None:
        self._config.wheel.cancel(self)
        self._config.waiting.discard(self)
        self._websocket = websocket = factory.build(request)
        self.dataReceived = websocket.dataReceived  # type: ignore[method-assign]
        websocket.makeConnection(self.transport)
        websocket.dataReceived(http.canonical_upgrade(key))
        if rest:
            websocket.dataReceived(rest)
        self._release()
        if websocket.state == websocket.STATE_CLOSED:
            self._refused_after_all(websocket)

    def _refused_after_all(self, websocket: RelayProtocol) -> None:
        """The authority said no to what was let through; it has answered and counted."""
        self._answered = True
        self._config.wheel.arm(self, self._config.now() + LINGER_S)
        refusal = websocket.refusal
        if refusal is not None:
            self._config.observer.refused(websocket.route, refusal.status, refusal.reason, websocket.request.client)

    def _client(self, head: http.Head) -> ClientAddress | None:
        """Who is asking, now that the head is there."""
        peer = peer_host(self.transport.getPeer())
        return self._config.trust.derive(peer, head.fields.get("x-forwarded-for", ()))

    def _refuse(
        self,
        route: str | None,
        status: int,
        reason: str,
        client: ClientAddress | None,
        *fields: tuple[str, str],
    ) -> None:
        self._config.observer.refused(route, status, reason, client)
        self._answer(http.response(status, fields))

    def _answer(self, answer: bytes) -> None:
        self._answered = True
        self._received.clear()
        self.transport.write(answer)
        self.transport.loseConnection()
        self._config.wheel.arm(self, self._config.now() + LINGER_S)

    def deadline_reached(self, now: float) -> None:
        """The head did not come in time, or the answered peer does not close."""
        if self._received and not self._answered:
            self._refuse(None, 408, "slow_head", self._address_at_accept())
        else:
            self.transport.abortConnection()

    def shut_down(self) -> None:
        """Drop a connection that is not upgraded, without waiting for its head."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave nothing behind."""
        self._config.wheel.cancel(self)
        self._config.waiting.discard(self)
        self._release()
        if self._websocket is not None:
            self._websocket.connectionLost(reason)

    def _release(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None


_FIELDS: Mapping[int, tuple[tuple[str, str], ...]] = {
    405: (("Allow", "GET"),),
    426: (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
}
"""What RFC 9110 sections 15.5.6 and 15.5.22 (and RFC 6455 section 4.2.2) want with these statuses."""


def _problem(head: http.Head, factory: RelayFactory, request: Request) -> HttpRefusal | None:
    """What is wrong with an attempt that the gate would admit."""
    if head.method != "GET":
        return HttpRefusal(405, "bad_method")
    if not http.asks_for_websocket(head):
        return HttpRefusal(426, "no_upgrade")
    if http.websocket_key(head) is None:
        return HttpRefusal(400, "bad_handshake")
    try:
        return factory.application.gate_headers(request)
    except RepeatedHeaderError:
        return HttpRefusal(400, "repeated_header")


@implementer(IProtocolNegotiationFactory)
class EntranceFactory(Factory):
    """Builds an `Entrance` for each accepted connection."""

    noisy = False

    def __init__(self, config: EntranceConfig) -> None:
        self.config = config

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may negotiate (RFC 7301): without this a client that offers anything fails its handshake."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Entrance:
        """One for each connection; never None."""
        return Entrance(self.config)
