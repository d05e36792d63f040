"""What a refused client is told: the reason, the HTTP status, and when to come back.

Times are seconds.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from math import ceil, inf
from typing import Final, NamedTuple

from pyryrelay.guard.jitter import Jitter
from pyryrelay.guard.leases import CapReason
from pyryrelay.guard.rate.gcra import RESOLUTION_S
from pyryrelay.guard.rate.quota import Quota

__all__ = [
    "CAP_REFUSALS",
    "CAP_RETRY_AFTER_S",
    "DENIED",
    "JAILED",
    "NO_FAULT_REASONS",
    "UNATTRIBUTABLE",
    "Reason",
    "Refusal",
    "whole_s",
]

CAP_RETRY_AFTER_S: Final = 5.0
"""When to try again after a cap. It cannot be known when a connection will end, so soon but not at once."""


class Reason(StrEnum):
    """Why a client was refused; the values are metric labels."""

    RATE_LIMIT = "rate_limit"
    PREFIX_RATE_LIMIT = "prefix_rate_limit"
    QUEUE_FULL = "queue_full"
    PREFIX_QUEUE_FULL = "prefix_queue_full"
    HTTP_RATE_LIMIT = "http_rate_limit"
    TLS_RATE_LIMIT = "tls_rate_limit"
    TLS_PREFIX_RATE_LIMIT = "tls_prefix_rate_limit"
    UNATTRIBUTABLE = "unattributable"
    JAILED = "jailed"
    DENIED = "denied"
    GLOBAL_CAP = "global_cap"
    ROUTE_CAP = "route_cap"
    ADDRESS_CAP = "address_cap"
    PREFIX_CAP = "prefix_cap"
    HANDSHAKE_CAP = "handshake_cap"
    HANDSHAKE_ADDRESS_CAP = "handshake_address_cap"


# A cap that neighbours have reached is their fault. A client that keeps trying runs out of tokens, and then of places
# to wait for one, which is a strike. The quota of the prefix is the same: waiting for it takes a place of the address.
NO_FAULT_REASONS: Final = frozenset(
    {
        Reason.RATE_LIMIT,
        Reason.PREFIX_RATE_LIMIT,
        Reason.GLOBAL_CAP,
        Reason.ROUTE_CAP,
        Reason.PREFIX_CAP,
        Reason.HANDSHAKE_CAP,
        Reason.JAILED,
    }
)
"""Reasons that are no strikes."""


class Refusal(NamedTuple):
    """A refusal in the terms of HTTP: ``status`` 403, 429 or 503, and when to come back (None: do not).

    ``quota`` is the one that was exceeded, for the header fields that tell a client about it.
    """

    status: int
    reason: Reason
    retry_after_s: float | None
    quota: Quota | None = None

    @property
    def phrase(self) -> str:
        """The reason phrase of the status line, such as ``Too Many Requests``."""
        return HTTPStatus(self.status).phrase

    def with_jitter(self, jitter: Jitter, fraction: float) -> Refusal:
        """Return the same refusal with a longer wait, if it has one; ``fraction`` is your random number from 0 to 1."""
        wait_s = self.retry_after_s
        return self if wait_s is None else self._replace(retry_after_s=jitter.added_to(wait_s, fraction))

    @property
    def quota_name(self) -> str:
        """The name of the exceeded quota, whether there was room to wait for it or not."""
        return _QUOTA_NAMES.get(self.reason, self.reason)

    @property
    def retry_after_whole_s(self) -> int | None:
        """When to come back in whole seconds, rounded up, at least 1; None for never."""
        wait_s = self.retry_after_s
        return None if wait_s is None or wait_s == inf else max(1, whole_s(wait_s))

    @property
    def retry_after_header(self) -> str | None:
        """The value of ``Retry-After`` (RFC 9110 section 10.2.3)."""
        seconds = self.retry_after_whole_s
        return None if seconds is None else str(seconds)


_QUOTA_NAMES: Final = {Reason.QUEUE_FULL: "rate_limit", Reason.PREFIX_QUEUE_FULL: "prefix_rate_limit"}


def whole_s(wait_s: float) -> int:
    """Round a wait up to the whole seconds that HTTP can tell."""
    # Half a resolution of rounding error must not turn 6 s into 7. The bucket forgives a whole one.
    return ceil(wait_s - RESOLUTION_S / 2)


UNATTRIBUTABLE: Final = Refusal(429, Reason.UNATTRIBUTABLE, CAP_RETRY_AFTER_S)
JAILED: Final = Refusal(403, Reason.JAILED, None)
DENIED: Final = Refusal(403, Reason.DENIED, None)
CAP_REFUSALS: Final = {
    CapReason.GLOBAL_CONNECTIONS: Refusal(503, Reason.GLOBAL_CAP, CAP_RETRY_AFTER_S),
    CapReason.ROUTE_CONNECTIONS: Refusal(503, Reason.ROUTE_CAP, CAP_RETRY_AFTER_S),
    CapReason.ADDRESS_CONNECTIONS: Refusal(429, Reason.ADDRESS_CAP, CAP_RETRY_AFTER_S),
    CapReason.PREFIX_CONNECTIONS: Refusal(429, Reason.PREFIX_CAP, CAP_RETRY_AFTER_S),
    CapReason.GLOBAL_HANDSHAKES: Refusal(503, Reason.HANDSHAKE_CAP, CAP_RETRY_AFTER_S),
    CapReason.ADDRESS_HANDSHAKES: Refusal(429, Reason.HANDSHAKE_ADDRESS_CAP, CAP_RETRY_AFTER_S),
}
