"""The gate: the one place that says yes or no to a client.

It is asked at three depths of a connection's life, with the same answer at each:

* `Gate.arrive` when a socket was accepted: may it stay while it sends its request?
* `Gate.peek` when the client address is known: would it be admitted? Costs nothing.
* `Gate.admit` when the upgrade is due: the authority, which spends exactly one token and hands out the lease.

An attempt that is refused for another reason (a bad header, say) still was an attempt: `Gate.spend` takes its
token.

Rules are checked in this order: attributable at all (429), deny list (403), quota (429), global cap (503),
cap per address (429). The allow list exempts from deny list and quota, never from caps. Attempts without an
address and denied ones spend nothing; an attempt that passes the quota and meets a cap has spent its token.

None of these count. Whoever sends a refusal to a client calls `Gate.record` with it, once; so a refusal that
was found early and one that was found late are the same number in `Gate.counts`.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from math import ceil, isfinite
from typing import TYPE_CHECKING, Final

from .buckets import Buckets
from .gcra import RESOLUTION_S, Decision
from .leases import CapReason, Lease, LeaseLimits, Leases
from .lists import CidrSet
from .quota import Quota

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clientip import AddressKey, ClientAddress

__all__ = ["CAP_RETRY_AFTER_S", "Gate", "GateConfig", "Reason", "Refusal"]

CAP_RETRY_AFTER_S: Final = 5.0
"""When to try again after a cap: nobody can know when a place will be free, so soon but not at once."""


class Reason(StrEnum):
    """Why a client was refused; the values are metric labels."""

    RATE_LIMIT = "rate_limit"
    UNATTRIBUTABLE = "unattributable"
    DENIED = "denied"
    GLOBAL_CAP = "global_cap"
    ADDRESS_CAP = "address_cap"
    HANDSHAKE_CAP = "handshake_cap"
    HANDSHAKE_ADDRESS_CAP = "handshake_address_cap"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A no, as HTTP says it: `status` 403, 429 or 503, and when to come back (None: do not)."""

    status: int
    reason: Reason
    retry_after_s: float | None

    @property
    def phrase(self) -> str:
        """The reason phrase of the status line, such as ``Too Many Requests``."""
        return HTTPStatus(self.status).phrase

    @property
    def retry_after_header(self) -> str | None:
        """The value of ``Retry-After`` (RFC 9110 section 10.2.3): whole seconds, rounded up, at least 1."""
        if self.retry_after_s is None or not isfinite(self.retry_after_s):
            return None
        # Half a resolution of rounding error must not turn 6 s into 7; the bucket forgives a whole one.
        return str(max(1, ceil(self.retry_after_s - RESOLUTION_S / 2)))


@dataclass(frozen=True, slots=True)
class GateConfig:
    """What a gate enforces: `upgrade_quota` per client address, `max_tracked` addresses remembered."""

    upgrade_quota: Quota = field(default_factory=lambda: Quota.parse("10/minute burst 20"))
    max_tracked: int = 1_000_000
    limits: LeaseLimits = field(default_factory=LeaseLimits)
    allow: CidrSet = field(default_factory=CidrSet)
    deny: CidrSet = field(default_factory=CidrSet)


_DENIED: Final = Refusal(403, Reason.DENIED, None)
_CAP_REFUSALS: Final = {
    CapReason.GLOBAL_CONNECTIONS: Refusal(503, Reason.GLOBAL_CAP, CAP_RETRY_AFTER_S),
    CapReason.ADDRESS_CONNECTIONS: Refusal(429, Reason.ADDRESS_CAP, CAP_RETRY_AFTER_S),
    CapReason.GLOBAL_HANDSHAKES: Refusal(503, Reason.HANDSHAKE_CAP, CAP_RETRY_AFTER_S),
    CapReason.ADDRESS_HANDSHAKES: Refusal(429, Reason.HANDSHAKE_ADDRESS_CAP, CAP_RETRY_AFTER_S),
}


class Gate:
    """Admission control for one server. See the module's docstring for the rules and their order.

    `leases` shows what is held and takes new limits while running; `counts` has every reason from the start.
    Raises `GuardError` if the configuration cannot be enforced.
    """

    def __init__(self, config: GateConfig | None = None) -> None:
        """Start with nobody inside and every bucket full."""
        self.config = GateConfig() if config is None else config
        self.leases = Leases(self.config.limits)
        self.counts: dict[Reason, int] = dict.fromkeys(Reason, 0)
        self._buckets = Buckets(self.config.upgrade_quota, self.config.max_tracked)
        interval_s = self.config.upgrade_quota.emission_interval_s
        self._unattributable = Refusal(429, Reason.UNATTRIBUTABLE, interval_s)

    @property
    def tracked(self) -> int:
        """Number of keys that take memory; a gauge."""
        return len(self._buckets)

    def arrive(self, address: ClientAddress | None, now: float) -> Lease | Refusal:
        """Let a connection that was just accepted stay until it is upgraded, or refuse it.

        `address` is the peer's own; None stands for a trusted proxy or a UNIX socket, which counts only
        globally. Spends no token. `now` is part of every question, so that rules about time can join without
        a new signature.
        """
        if address is not None and self._is_denied(address):
            return _DENIED
        taken = self.leases.take_handshake(None if address is None else address.key)
        return _CAP_REFUSALS[taken] if isinstance(taken, CapReason) else taken

    def peek(self, address: ClientAddress | None, now: float) -> Refusal | None:
        """Return the refusal that `admit` would give now, or None. Changes nothing."""
        refusal = self._refused(address, self._buckets.peek, now)
        if refusal is not None or address is None:
            return refusal
        cap = self.leases.would_refuse_connection(address.key)
        return None if cap is None else _CAP_REFUSALS[cap]

    def spend(self, address: ClientAddress | None, now: float) -> Refusal | None:
        """Take the token of an attempt that is refused for another reason; look at no cap, take no lease.

        Returns the refusal if the attempt had no token to spend: that one goes first.
        """
        return self._refused(address, self._buckets.spend, now)

    def admit(self, address: ClientAddress | None, route: str, now: float) -> Lease | Refusal:
        """Spend one token and take a place on `route`, or say why not. The caller releases the lease."""
        if address is None:
            return self._unattributable
        refusal = self._refused(address, self._buckets.spend, now)
        if refusal is not None:
            return refusal
        taken = self.leases.take_connection(address.key, route)
        return _CAP_REFUSALS[taken] if isinstance(taken, CapReason) else taken

    def record(self, refusal: Refusal) -> None:
        """Count a refusal that was sent to a client; call it exactly once for each."""
        self.counts[refusal.reason] += 1

    def sweep(self, now: float) -> None:
        """Forget what no longer matters, a slice at a time. Call it about once a second."""
        self._buckets.sweep(now)

    def _is_denied(self, address: ClientAddress) -> bool:
        return address in self.config.deny and address not in self.config.allow

    def _refused(
        self, address: ClientAddress | None, ask: Callable[[AddressKey, float], Decision], now: float
    ) -> Refusal | None:
        """Check everything but the caps; `ask` is the buckets' peek or spend."""
        if address is None:
            return self._unattributable
        if self._is_denied(address):
            return _DENIED
        if address in self.config.allow:
            return None
        decision = ask(address.key, now)
        return None if decision.allowed else Refusal(429, Reason.RATE_LIMIT, decision.retry_after_s)
