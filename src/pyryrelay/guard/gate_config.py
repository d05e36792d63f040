"""What a gate enforces, and the quotas that follow from it.

Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.errors import CidrError, LimitError, QuotaSyntaxError
from pyryrelay.guard.jail import JailPolicy
from pyryrelay.guard.leases import LeaseLimits
from pyryrelay.guard.rate.quota import MAX_COUNT, Quota
from pyryrelay.guard.refusal import NO_FAULT_REASONS

__all__ = ["EARLY_CLOSE_QUOTA", "HTTP_REFUSAL_FACTOR", "GateConfig"]

EARLY_CLOSE_QUOTA: Final = Quota(60, 60.0, 60)
"""How often an address may connect and leave without a request: load balancers check servers once a second."""

HTTP_REFUSAL_FACTOR: Final = 10
"""How many times the quota of plain requests may be exceeded before that is a strike."""


@dataclass(frozen=True, slots=True)
class GateConfig:
    """What a gate enforces; None turns a quota off.

    ``upgrade_quota``, ``http_quota`` and ``tls_quota`` are per client address, ``prefix_quota`` and
    ``tls_prefix_quota`` are for a whole /24 or /48. ``max_tracked`` bounds the addresses, or prefixes, remembered for
    each of them. Without ``jail`` no client is jailed any more; those that are jailed already stay so. ``jail_exempt``
    are never jailed, and have no other privilege: name the proxies here.

    What you refuse for reasons of your own is a strike, unless the reason is in ``no_fault_reasons``: it is not the
    client's fault. Those in ``http_quota_reasons`` are for requests that have had a token of ``http_quota`` before they
    are refused; while there is that quota, they are no strikes either.

    Raises `GuardError` for a text in the place of a value.
    """

    upgrade_quota: Quota | None = field(default_factory=lambda: Quota.parse("10/minute burst 20"))
    prefix_quota: Quota | None = None
    http_quota: Quota | None = None
    tls_quota: Quota | None = None
    tls_prefix_quota: Quota | None = None
    max_tracked: int = 1_000_000
    limits: LeaseLimits = field(default_factory=LeaseLimits)
    allow: CidrSet = field(default_factory=CidrSet)
    deny: CidrSet = field(default_factory=CidrSet)
    jail: JailPolicy | None = None
    jail_exempt: CidrSet = field(default_factory=CidrSet)
    no_fault_reasons: frozenset[str] = frozenset()
    http_quota_reasons: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse texts, which would fail at the first client."""
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, str):
                continue
            if one.name.endswith("quota"):
                raise QuotaSyntaxError(f"{one.name} {value!r} is a text: write Quota.parse({value!r})")
            if one.name.endswith("reasons"):
                raise LimitError(f"{one.name} {value!r} is a text: write frozenset({{{value!r}}})")
            raise CidrError(f"{one.name} {value!r} is a text: write CidrSet({value!r})")

    def reasons_without_strike(self) -> frozenset[str]:
        """Return the reasons, of the guard and of its caller, that are not held against a client."""
        paid = frozenset[str]() if self.http_quota is None else self.http_quota_reasons
        return NO_FAULT_REASONS | self.no_fault_reasons | paid

    def http_refusal_quota(self) -> Quota | None:
        """Return how often the quota of plain requests may refuse a client before that is a strike.

        A web page can make browsers send such requests, and must not get them jailed by a few hundred pictures.
        """
        quota = self.http_quota
        if quota is None:
            return None
        factor = max(1, min(HTTP_REFUSAL_FACTOR, MAX_COUNT // max(quota.count, quota.burst)))
        return Quota(quota.count * factor, quota.period_s, quota.burst * factor)
