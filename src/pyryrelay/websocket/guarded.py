"""The guard for any Autobahn server: `Guarded`, a mixin for `WebSocketServerProtocol`.

Invariants: `onConnect` asks the gate exactly once for each upgrade attempt, unless the attempt was admitted before and
came with its lease. A lease is released exactly once, when the connection is lost. Each refusal of the gate strikes its
client once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from pyryrelay.guard import ClientAddress, Gate, Refusal, Sentence, TrustPolicy
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.websocket.autobahn_base import GuardHooks

SWEEP_S = 1.0
"""How often the gate is swept while clients connect."""


def peer_host(address: IAddress) -> str | None:
    """Return the text of a transport's peer address; None for UNIX-domain sockets, which have none."""
    return address.host if isinstance(address, IPv4Address | IPv6Address) else None


def refusal_fields(refusal: Refusal) -> list[tuple[str, str]]:
    """Return the header fields of a refusal: when to try again, and which quota was exceeded.

    `RateLimit` and `RateLimit-Policy` are those of the IETF's draft-ietf-httpapi-ratelimit-headers: ``q`` tokens in
    ``w`` seconds, ``r`` of them left, and more in ``t`` seconds.
    """
    retry_after, quota = refusal.retry_after_header, refusal.quota
    if retry_after is None:
        return []
    fields = [("Retry-After", retry_after)]
    if quota is not None:
        name = refusal.quota_name
        fields.append(("RateLimit-Policy", f'"{name}";q={quota.count};w={quota.period_s:.0f}'))
        fields.append(("RateLimit", f'"{name}";r=0;t={retry_after}'))
    return fields


class HeldLease(Protocol):
    """The right to a place for a connection: a `pyryrelay.guard.Lease`, or what stands for one of another process."""

    def release(self) -> None:
        """Release the place. The first call counts; later ones do nothing."""


class Guarded(GuardHooks):
    """Derive your protocol from this and `WebSocketServerProtocol`, in this order, and set ``gate``.

    ``trust`` names the proxies whose forwarding headers count, by default none. The gate counts the connections under
    ``route``. ``now`` is the monotonic clock in seconds. ``refusal`` is the gate's, if it has refused the client.
    Refusals are neither logged nor counted: override `on_refused` for that.
    """

    transport: IStreamTransport
    gate: Gate
    trust = TrustPolicy()
    route = "websocket"
    now: Callable[[], float] = staticmethod(time.monotonic)

    _lease: HeldLease | None = None
    refusal: Refusal | None = None

    def client_address(self, request: ConnectionRequest) -> ClientAddress | None:
        """Return the client's address: the peer's, or the one that a trusted proxy forwards; None if it is unknown."""
        forwarded = request.headers.get(self.trust.header)
        return self.trust.derive(peer_host(self.transport.getPeer()), [] if forwarded is None else [forwarded])

    def onConnect(self, request: ConnectionRequest) -> Any:
        """Spend one token and take one lease, or raise `ConnectionDeny`."""
        now = self.now()
        if now >= self.gate.swept_s + SWEEP_S:
            self.gate.sweep(now)
        self.admit(request)
        return super().onConnect(request)

    def admit(self, request: ConnectionRequest) -> None:
        """Ask the gate, once, unless there is a lease. Raises `ConnectionDeny` if it refuses the client."""
        if self._lease is not None:
            return
        client, now = self.client_address(request), self.now()
        outcome = self.gate.admit(client, self.route, now)
        if isinstance(outcome, Refusal):
            self.refusal = outcome
            self.on_refused(client, outcome, now)
            raise ConnectionDeny(outcome.status, outcome.phrase)
        self._lease = outcome

    def on_refused(self, client: ClientAddress | None, refusal: Refusal, now: float) -> Sentence | None:
        """Strike a client for a refusal that is its fault; return the sentence if it is jailed for that.

        Called exactly once for each refusal. Override it to count or log them, and call it.
        """
        return self.gate.strike(client, refusal.reason, now)

    def hold(self, lease: HeldLease) -> None:
        """Hold a lease that was taken for this connection before, and release it when the connection is lost."""
        self._lease = lease

    def release(self) -> None:
        """Release the lease, if it is still held."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def denial_fields(self) -> list[tuple[str, str]] | None:
        """Return the header fields that go with the refusal, if there was one."""
        return None if self.refusal is None else refusal_fields(self.refusal)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Release the lease. The transport calls this exactly once for each connection."""
        self.release()
        super().connectionLost(reason)
