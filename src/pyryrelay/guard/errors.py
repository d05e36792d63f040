"""Errors of the guard: what a configuration can get wrong.

Every message is one line that names the offending value with ``!r`` and says what to write instead. Traffic never
raises: a hostile address or header leads to a refusal, not to an exception.
"""

from __future__ import annotations

__all__ = ["AddressError", "CidrError", "GuardError", "LimitError", "QuotaSyntaxError", "TrustError"]


class GuardError(ValueError):
    """Base of all errors that the guard raises."""


class QuotaSyntaxError(GuardError):
    """The text of a quota, or one of its numbers, cannot be used."""


class AddressError(GuardError):
    """A prefix length does not fit the address family it is used with."""


class CidrError(GuardError):
    """An entry of a network list is not a network."""


class LimitError(GuardError):
    """A cap or a bound is outside of the range in which it has an effect."""


class TrustError(GuardError):
    """A trust policy names a header that cannot hold a client address."""
