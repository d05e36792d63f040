"""Upgrades that are not served here, or not yet known to be: the connection waits, or is carried away.

See `pyryrelay.http.placement` for the rules. While a connection waits, what its peer sends behind the head is kept, up
to `EARLY_BYTES`; beyond that it is not read from.

Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.tcp import Connection as TcpConnection
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.guard import Lease, Refusal
from pyryrelay.http.answering import AnsweringConnection
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.placement import UNAVAILABLE, Attempt, Carrier, Place
from pyryrelay.http.refusals import ResponseBytes, refuse, refuse_admission
from pyryrelay.http.routing import Upgrade, settle
from pyryrelay.protocol import HttpRefusal
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.runtime.socket_options import Socket
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.runtime.twisted_internals import detach_socket, replace_protocol, server_transport, unsent_bytes
from pyryrelay.websocket.guarded import HeldLease

__all__ = ["EARLY_BYTES", "PlacingConnection", "admit", "attempt_of", "give_to", "refuse_carried"]

_log = Logger(namespace="pyryrelay")

EARLY_BYTES: Final = 65536
"""What is kept of what a peer sends while its connection waits, beyond the chunk that exceeds it."""


def attempt_of(
    context: ListenerContext,
    upgrade: Upgrade,
    head: bytes,
    rest: bytes,
    lease: HeldLease,
    connection: Socket | IStreamTransport,
    address: tuple[Any, ...] | None,
    refuse_it: Callable[[HttpRefusal], None],
) -> Attempt:
    """Return what a carrier gets of an upgrade that was admitted."""
    factory, request, websocket_key, _, key, _ = upgrade
    route, at_end = factory.application.name, context.callbacks.at_end
    return Attempt(head, rest, route, key, request, websocket_key, lease, connection, address, refuse_it, at_end)


def admit(context: ListenerContext, upgrade: Upgrade) -> HeldLease | ResponseBytes:
    """Spend the token and take the lease of an upgrade that is carried away, or refuse it as the upgrade would be."""
    if upgrade.lease is not None:
        return upgrade.lease
    client, route = upgrade.request.client, upgrade.factory.application.name
    outcome: Lease | Refusal = context.gate.admit(client, route, context.now())
    return refuse_admission(context, route, outcome, client) if isinstance(outcome, Refusal) else outcome


def give_to(carrier: Carrier, attempt: Attempt) -> None:
    """Give an upgrade to its carrier. A fault of the carrier is logged, and the client is refused."""
    try:
        carrier.carry(attempt)
    except Exception:
        _log.failure("A connection could not be carried")
        attempt.refuse(UNAVAILABLE)


def refuse_carried(context: ListenerContext, upgrade: Upgrade, refusal: HttpRefusal) -> ResponseBytes:
    """Refuse an upgrade that its carrier has given back."""
    route, client = upgrade.factory.application.name, upgrade.request.client
    return refuse(context, route, refusal.status, refusal.reason, client, refusal.fields)


class PlacingConnection(AnsweringConnection):
    """A connection whose upgrade may wait, or be carried away."""

    _peer: str | None = None
    _waiting_upgrade: Upgrade | None = None
    _head = b""
    _early: bytearray

    # What the subclass brings

    def _upgrade(self, upgrade: Upgrade, rest: bytes) -> None:
        """Serve the upgrade."""
        raise NotImplementedError

    def _release(self) -> None:
        """Release the lease that this connection holds while it is not upgraded."""
        raise NotImplementedError

    def _let_go(self, lease: HeldLease | None) -> None:
        """Hold a lease no longer that goes on with the connection."""
        raise NotImplementedError

    def another(self) -> PlacingConnection:
        """Return a new connection, for the same socket under another transport."""
        raise NotImplementedError

    def take_answer(self, answer: ResponseBytes) -> None:
        """Give the answer to a request that was read by another connection."""
        raise NotImplementedError

    # Where to

    def _place(self, upgrade: Upgrade, head: bytes, rest: bytes) -> None:
        """Serve an upgrade here, carry it away, or wait until its place is known."""
        if upgrade.place is None:
            self._upgrade(upgrade, rest)
        elif isinstance(upgrade.place, Deferred):
            self._wait(upgrade, upgrade.place, head, rest)
        else:
            self._carry(upgrade, upgrade.place, head, rest)

    def _wait(self, upgrade: Upgrade, place: Deferred[Place], head: bytes, rest: bytes) -> None:
        self._is_decided = True
        self._waiting_upgrade, self._head, self._early = upgrade, head, bytearray(rest)
        place.addCallbacks(self._place_known, self._place_failed)

    def _is_placing(self) -> bool:
        """Whether the place of an upgrade is awaited."""
        return self._waiting_upgrade is not None

    def _keep(self, data: bytes) -> None:
        """Keep what the peer sends while it waits."""
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self.transport.pauseProducing()

    def _stop_waiting(self) -> tuple[Upgrade, bytes, bytes] | None:
        """Return what waits, with its head and what came behind it, and wait no longer; None if nothing does."""
        upgrade, self._waiting_upgrade = self._waiting_upgrade, None
        if upgrade is None:
            return None
        head, rest = self._head, bytes(self._early)
        self._head = b""
        self._early.clear()
        if len(rest) > EARLY_BYTES:
            self.transport.resumeProducing()
        return upgrade, head, rest

    def _place_known(self, place: Place) -> None:
        waited = self._stop_waiting()
        if waited is None:
            return  # it has left, or its time is over
        upgrade, head, rest = waited
        context = self._context
        try:
            if context.live.draining:
                self._answer(refuse_carried(context, upgrade, HttpRefusal(503, RefusalWord.DRAINING)))
                return
            decision = settle(context, upgrade, place)
            if isinstance(decision, Upgrade):
                self._place(decision, head, rest)
            else:
                self._answer(decision)
        except Exception:
            _log.failure("A request could not be answered")
            # There can be no HTTP answer behind a 101, and no other one behind an answer.
            self._answer(b"")

    def _place_failed(self, failure: Failure) -> None:
        waited = self._stop_waiting()
        if waited is not None:  # it was not cancelled
            _log.failure("A request could not be answered", failure)
            self._answer(refuse(self._context, None, 500, RefusalWord.INTERNAL_ERROR, None))

    def _give_up_waiting(self) -> Upgrade | None:
        """Tell the placement that its answer is not needed any more; return the upgrade that has waited for it."""
        waited = self._stop_waiting()
        if waited is None:
            return None
        self.give_up(waited[0])
        return waited[0]

    def give_up(self, upgrade: Upgrade) -> None:
        """Cancel the question about the place of an upgrade; a fault in doing so is logged."""
        if isinstance(upgrade.place, Deferred):
            try:
                upgrade.place.addErrback(lambda failure: None).cancel()
            except Exception:
                _log.failure("A placement failed")

    def deadline_reached(self, now: float) -> None:
        """The place was not known in time, or see `AnsweringConnection`."""
        upgrade = self._give_up_waiting()
        if upgrade is None:
            super().deadline_reached(now)
        else:
            self._answer(refuse_carried(self._context, upgrade, UNAVAILABLE))

    # Away

    def _carry(self, upgrade: Upgrade, carrier: Carrier, head: bytes, rest: bytes) -> None:
        """Admit an upgrade, and give the connection to its carrier."""
        self._is_decided = True
        lease = admit(self._context, upgrade)
        if isinstance(lease, bytes):
            self._answer(lease)
            return
        self._let_go(lease)
        transport = self.transport
        if isinstance(transport, TcpConnection) and not unsent_bytes(transport):
            self._carry_socket(transport, upgrade, carrier, head, rest, lease)
        else:
            self._carry_transport(upgrade, carrier, head, rest, lease)

    def _carry_socket(
        self,
        transport: TcpConnection,
        upgrade: Upgrade,
        carrier: Carrier,
        head: bytes,
        rest: bytes,
        lease: HeldLease,
    ) -> None:
        context, reactor = self._context, transport.reactor
        address: tuple[Any, ...] | None = getattr(transport, "client", None) if self._has_address() else None
        try:
            sock = detach_socket(transport)
        except OSError:
            lease.release()
            self._answer(refuse_carried(context, upgrade, UNAVAILABLE))
            return

        def refuse_it(refusal: HttpRefusal) -> None:
            lease.release()
            answer = refuse_carried(context, upgrade, refusal)
            answer_on(sock, address, reactor, self.another(), answer)

        give_to(carrier, attempt_of(context, upgrade, head, rest, lease, sock, address, refuse_it))

    def _has_address(self) -> bool:
        """Whether the peer of the transport has an address, which it has not on a UNIX socket."""
        return hasattr(self.transport.getPeer(), "host")

    def _carry_transport(self, upgrade: Upgrade, carrier: Carrier, head: bytes, rest: bytes, lease: HeldLease) -> None:
        context, transport = self._context, self.transport
        transport.pauseProducing()
        context.wheel.cancel(self)
        context.waiting.discard(self)
        self._release()

        def refuse_it(refusal: HttpRefusal) -> None:
            lease.release()
            replace_protocol(transport, cast(IProtocol, self))
            transport.resumeProducing()
            self._answer(refuse_carried(context, upgrade, refusal))

        give_to(carrier, attempt_of(context, upgrade, head, rest, lease, transport, None, refuse_it))


def answer_on(
    sock: Socket,
    address: tuple[Any, ...] | None,
    reactor: Any,
    connection: PlacingConnection,
    answer: ResponseBytes,
) -> None:
    """Give an answer to a peer whose socket has no transport, and end the connection in order."""
    try:
        transport = server_transport(sock, cast(IProtocol, connection), address, reactor)
    except OSError:
        sock.close()
        return
    connection.makeConnection(cast(Any, transport))
    connection.take_answer(answer)
