"""When to renew a certificate, and when to try again after a failure. PURE.

Points in time are seconds since 1970, as in certificates; ``chance`` is a random number from 0 to 1.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ASK_AGAIN_S", "asked_renewal_at", "renewal_at", "retry_after_s"]

RENEW_AT: Final = 2 / 3
"""The part of a certificate's lifetime after which it is renewed."""
JITTER: Final = 1 / 30
"""Renewals are spread over this part of the lifetime before that."""
LATEST: Final = 9 / 10
"""However late the authority wants the renewal, it is not put off longer than this part of the lifetime."""
ASK_AGAIN_S: Final = 6 * 3600.0
"""How often the authority is asked when to renew, unless it says otherwise (RFC 9773 section 4.3.2)."""
EARLIEST_S: Final = 6 * 3600.0
"""However early the authority wants the renewal, a certificate is used for so long, or until `LATEST`.

An authority whose answer is always in the past would otherwise cause one order after another.
"""
FIRST_RETRY_S: Final = 600.0
LONGEST_RETRY_S: Final = 12 * 3600.0
"""Let's Encrypt accepts 5 failures an hour of one name. Four tries in the first 70 minutes stay below that."""


def renewal_at(begins_at: float, expires_at: float, chance: float) -> float:
    """Return when to renew a certificate: after two thirds of its lifetime, or a little earlier."""
    return begins_at + (expires_at - begins_at) * (RENEW_AT - JITTER * chance)


def asked_renewal_at(asked_at: float, begins_at: float, expires_at: float) -> float:
    """Return when to renew a certificate that the authority wants to be renewed at ``asked_at``."""
    latest = begins_at + (expires_at - begins_at) * LATEST
    return min(max(asked_at, begins_at + EARLIEST_S), latest)


def retry_after_s(failures: int, chance: float) -> float:
    """Return how long to wait after so many failures in a row, 1 or more: 10 minutes, doubled up to 12 hours.

    Up to a quarter is added, so that relays that failed together do not try again together.
    """
    wait_s = FIRST_RETRY_S * 2 ** min(failures - 1, 30)
    return float(min(wait_s, LONGEST_RETRY_S)) * (1 + chance / 4)
