"""The guard in front of any Autobahn server: `Guarded`, a mixin for `WebSocketServerProtocol`.

Invariants: `onConnect` asks the gate exactly once per upgrade attempt, and a lease that it got is released exactly
once, when the connection is lost, whatever happened in between. What the gate refuses is a strike, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import txaio
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from pyryrelay.guard import ClientAddress, Gate, Lease, Refusal, Sentence, TrustPolicy
from pyryrelay.runtime.transports import IStreamTransport

if TYPE_CHECKING:
    from autobahn.twisted.websocket import WebSocketServerProtocol as _Base
else:
    _Base = object


SWEEP_S = 1.0
"""How often the gate is swept while clients come."""

BAD_GATEWAY = 1014
_TRY_AGAIN_LATER = 1013
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


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


@cache
def _silence() -> Any:
    """A logger that has a line for nothing but what is critical."""
    return txaio.make_logger(level="critical")  # type: ignore[attr-defined]  # made when a framework is chosen


class Guarded(_Base):
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

    def failHandshake(
        self, reason: str, code: int = 400, responseHeaders: Sequence[tuple[str, str]] | None = None
    ) -> None:
        """Answer with complete HTTP framing, and a phrase that holds nothing the client sent."""
        fields = [*(responseHeaders or ()), ("Content-Length", "0"), ("Connection", "close")]
        if self.refusal is not None:
            fields = refusal_fields(self.refusal) + fields
            # Autobahn has two lines for each, which a flood turns into a full disk.
            self.log = _silence()
        date = ("Date", formatdate(usegmt=True))
        super().failHandshake(_PHRASES.get(code, "Refused"), code, [date, *fields])

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> Any:  # noqa: N803  # Autobahn's name for it
        """Take 1014 like 1013: it is in IANA's registry of close codes, and Autobahn's list of them ends before it.

        A server that is told to echo close codes (``echoCloseCodeReason``) echoes 1013.
        """
        if code != BAD_GATEWAY:
            return super().onCloseFrame(code, reasonRaw)
        done = super().onCloseFrame(_TRY_AGAIN_LATER, reasonRaw)
        if self.remoteCloseCode == _TRY_AGAIN_LATER:
            self.remoteCloseCode = code
        return done

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give the lease back; the transport calls this exactly once for every connection."""
        self.release()
        super().connectionLost(reason)
