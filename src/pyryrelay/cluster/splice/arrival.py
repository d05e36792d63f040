"""A connection to ``--cluster-listen``: one that another instance has accepted, and that is to be served here.

It begins with a PROXY header that has a ticket (see `pyryrelay.cluster.splice.ticket`), or, with
``--cluster-redirect``, with a request that has a ticket in a field. Everything else is cut off without an answer. The
client was admitted where it was accepted: it costs no token here, but takes a lease, which protects this process.

One hop, never two: what does not belong here either is answered 503, with ``Retry-After: 1``.

Invariants: an application sees a connection only after its ticket was checked, and each ticket is taken once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.splice.figures import ArrivalProblem, Figures
from pyryrelay.cluster.splice.header import ticket_of
from pyryrelay.cluster.splice.redirect import TICKET_FIELD, ticket_in
from pyryrelay.cluster.splice.strays import Strays
from pyryrelay.cluster.splice.ticket import Nonces, Ticket, TicketError, read
from pyryrelay.guard import CidrSet, ClientAddress, Lease
from pyryrelay.guard.address.clientip import Via
from pyryrelay.http import message
from pyryrelay.http.answering import cancel
from pyryrelay.http.connection import HttpConnection
from pyryrelay.http.listener_context import ListenerContext, Observer
from pyryrelay.http.placement import HERE, UNAVAILABLE, Place, Placement
from pyryrelay.http.plain_requests import PendingAnswer
from pyryrelay.http.proxy_protocol.proxy_header import ProxyHeaderError, ProxyHeaderParser
from pyryrelay.http.refusals import refuse
from pyryrelay.http.routing import Upgrade, decide
from pyryrelay.websocket.guarded import peer_host

__all__ = ["Arrival", "ArrivalFactory", "Arrivals", "OneHop", "QuietObserver"]


class QuietObserver:
    """An observer that leaves out attempts: they were counted where they were accepted."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """See `pyryrelay.http.listener_context.Observer`."""
        self._observer.refused(route, status, reason, client)

    def attempted(self, client: ClientAddress, via: Via) -> None:
        """Count nothing."""

    def decided(self, seconds: float) -> None:
        """See `pyryrelay.http.listener_context.Observer`."""
        self._observer.decided(seconds)


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """What all arrivals of a process share.

    ``peers`` may connect. ``spliced`` is the listener's context for connections whose ticket names the client, and
    ``redirected`` that for requests that a proxy repeats; None if that is off. The placement of both is `OneHop`.
    ``wall`` is the machine's clock, and ``strays`` has the keys of those that were served.
    """

    peers: CidrSet
    trusts_unix: bool
    me: Member
    secret: bytes
    nonces: Nonces
    figures: Figures
    spliced: ListenerContext
    redirected: ListenerContext | None
    wall: Callable[[], float]
    strays: Strays

    def accepts(self, host: str | None) -> bool:
        """Tell whether a peer may connect."""
        return self.trusts_unix if host is None else host in self.peers

    def check(self, raw: bytes) -> Ticket:
        """Return what a ticket says, and take it. Raises `TicketError`."""
        return read(raw, self.me, self.secret, self.wall(), self.nonces)


class OneHop:
    """The placement of connections that have made a hop: here, or nowhere."""

    def __init__(self, placement: Placement, figures: Figures) -> None:
        self._placement = placement
        self._figures = figures

    def place(self, route: str, key: str) -> Place | Deferred[Place]:
        """See `pyryrelay.http.placement.Placement`."""
        place = self._placement.place(route, key)
        return place.addCallback(self._here) if isinstance(place, Deferred) else self._here(place)

    def _here(self, place: Place) -> Place:
        if place is HERE:
            return HERE
        self._figures.sent_back += 1
        return UNAVAILABLE


class Arrival(HttpConnection):
    """See the module's docstring."""

    _has_begun = False
    _has_ticket = False

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__(arrivals.spliced)
        self._arrivals = arrivals

    # The ticket

    def connectionMade(self) -> None:
        """Cut off everybody but peers."""
        context = self._context
        context.waiting.add(self)
        context.wheel.arm(self, context.now() + context.head_timeout_s)
        self._peer = peer_host(self.transport.getPeer())
        if not self._arrivals.accepts(self._peer):
            self._cut_off(ArrivalProblem.FOREIGN)
            return
        self._proxy_header = ProxyHeaderParser()

    def _cut_off(self, problem: str) -> None:
        self._is_decided = True
        self._arrivals.figures.cut_off[problem] += 1
        self.transport.abortConnection()

    def _read_proxy_header(self, parser: ProxyHeaderParser, data: bytes) -> bytes:
        """Take the bytes of the PROXY header, check its ticket, and return what is behind it."""
        has_begun, self._has_begun = self._has_begun, True
        if self._arrivals.redirected is not None and data[:1] == b"G" and not has_begun:
            self._proxy_header = None
            self._context = self._arrivals.redirected
            self._arrivals.spliced.waiting.discard(self)
            self._context.waiting.add(self)
            return data
        try:
            header = parser.feed(data)
            if header is None:
                return b""
            raw = ticket_of(header.tlvs)
            ticket = None if raw is None else self._arrivals.check(raw)
        except ProxyHeaderError:
            self._cut_off(ArrivalProblem.NO_TICKET)
            return b""
        except TicketError as error:
            self._cut_off(error.problem)
            return b""
        if ticket is None or ticket.client != header.source:
            self._cut_off(ArrivalProblem.NO_TICKET)
            return b""
        self._proxy_header = None
        self._peer = header.source
        self._has_ticket = True
        return parser.rest

    def _take_field(self, raw: bytes) -> bool:
        """Check the ticket in a field of the head."""
        try:
            values = message.parse_head(raw).fields.get(TICKET_FIELD, ())
            if len(values) != 1:
                self._cut_off(ArrivalProblem.NO_TICKET)
                return False
            self._arrivals.check(ticket_in(values[0]))
        except message.HeadError:
            self._cut_off(ArrivalProblem.NO_TICKET)
            return False
        except TicketError as error:
            self._cut_off(error.problem)
            return False
        self._has_ticket = True
        return True

    def _may_go_on(self) -> bool:
        return len(self._received) <= message.MAX_HEAD_BYTES and message.may_begin(self._received)

    def _unreadable(self, end: int) -> None:
        """Cut off what no instance would send."""
        self._received.clear()
        self._cut_off(ArrivalProblem.NO_TICKET)

    # The head

    def _decide(self, raw: bytes, rest: bytes) -> None:
        if not self._has_ticket and not self._take_field(raw):
            return
        decision = decide(self._context, raw, self._peer, is_admitted=True)
        if isinstance(decision, PendingAnswer):
            cancel(decision)
            self._cut_off(ArrivalProblem.NO_TICKET)
        elif isinstance(decision, Upgrade):
            self._place(decision, raw, rest)
        else:
            self._answer(decision)

    def _upgrade(self, upgrade: Upgrade, rest: bytes) -> None:
        """Serve an upgrade, if this process has a place for it."""
        context, client, route = self._context, upgrade.request.client, upgrade.factory.application.name
        lease = context.gate.leases.take_connection(client.key, route)
        if isinstance(lease, Lease):
            self._arrivals.figures.arrived += 1
            self._arrivals.strays.note(upgrade.place_key)
            super()._upgrade(upgrade._replace(lease=lease), rest)
        else:
            self._answer(refuse(context, route, 503, lease, client, UNAVAILABLE.fields))

    # Ending

    def deadline_reached(self, now: float) -> None:
        """The ticket and the head were not complete in time, or see `HttpConnection`."""
        if self._is_decided:
            super().deadline_reached(now)
        else:
            self._cut_off(ArrivalProblem.LATE)

    def _left_early(self) -> None:
        """Count a connection that ended before its head was complete. The other instance is no client."""
        if not self._is_decided:
            self._is_decided = True
            self._arrivals.figures.cut_off[ArrivalProblem.LATE] += 1


class ArrivalFactory(Factory):
    """Builds an `Arrival` for each connection; ``arrivals`` is called once, for the first of them."""

    noisy = False

    def __init__(self, arrivals: Callable[[], Arrivals]) -> None:
        self._new = arrivals
        self._arrivals: Arrivals | None = None

    def buildProtocol(self, addr: IAddress | None) -> Arrival:
        """Build one for each connection; never None."""
        if self._arrivals is None:
            self._arrivals = self._new()
        return Arrival(self._arrivals)
