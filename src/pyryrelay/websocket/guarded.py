"""The guard in front of any Autobahn server: `Guarded`, a mixin for `WebSocketServerProtocol`.

Invariants: `onConnect` asks the gate exactly once per upgrade attempt, and a lease that it got is released exactly
once, when the connection is lost, whatever happened in between. What the gate refuses is a strike, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from pyryrelay.guard import ClientAddress, Gate, Lease, Refusal, Sentence, TrustPolicy
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.websocket.autobahn_base import GuardHooks

SWEEP_S = 1.0
"""How often the gate is swept while clients come."""


def peer_host(address: IAddress) -> str | None:
    """The text of a transport's peer address; None where it has none (UNIX sockets)."""
    return address.host if isinstance(address, IPv4Address | IPv6Address) else None


def refusal_fields(refusal: Refusal) -> list[tuple[str, str]]:
    """The header fields that go with a refusal: when to try again, and which quota it was.

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


class Guarded(GuardHooks):
    """Put it before `WebSocketServerProtocol` in the bases, and a `Gate` into ``gate`` of the class.

    ``trust`` says whose forwarding headers count (nobody's, unless set), ``route`` is the word under which the gate
    counts these connections, ``now`` the monotonic clock in seconds. ``refusal`` is what the gate said if it said no.
    Refusals are neither logged nor counted: override `on_refused` for that.
    """

    transport: IStreamTransport
    gate: Gate
    trust = TrustPolicy()
    route = "websocket"
    now: Callable[[], float] = staticmethod(time.monotonic)

    _lease: Lease | None = None
    refusal: Refusal | None = None

    def client_address(self, request: ConnectionRequest) -> ClientAddress | None:
        """Who is asking: the peer, or whom a trusted proxy names in the policy's header; None if nobody can tell."""
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
        """Ask the gate, once; raises `ConnectionDeny` if it says no."""
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

    def release(self) -> None:
        """Give the lease back; nothing where there is none any more."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def denial_fields(self) -> list[tuple[str, str]] | None:
        """Return the header fields that go with the refusal, if there was one."""
        return None if self.refusal is None else refusal_fields(self.refusal)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give the lease back; the transport calls this exactly once for every connection."""
        self.release()
        super().connectionLost(reason)
