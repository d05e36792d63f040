"""The quotas of one connection."""

from __future__ import annotations

import pytest

from pyryrelay.guard import ByteQuota, Quota
from pyryrelay.nostr.options.rates import RateOptions


@pytest.mark.parametrize(("excess_timeout_s", "expected"), [(300.0, 30.0), (5.0, 5.0), (None, None)])
def test_throttle(excess_timeout_s: float | None, expected: float | None) -> None:
    """Clients may be in excess for half a minute, unless the operator gives less, or turns closing off."""
    policy = RateOptions(excess_timeout_s=excess_timeout_s).nostr_throttle()
    assert policy.excess_timeout_s == expected
    assert policy.quota("frames") == Quota.parse("1200/minute burst 2400")
    assert policy.quota("bytes") == ByteQuota.parse("16 MiB/minute burst 32 MiB")
    assert policy.quota("pings") == Quota.parse("60/minute")


def test_ephemerals_have_quotas_of_their_own() -> None:
    """Each of the three quotas of events has a twin for ephemerals, which is larger."""
    options = RateOptions()
    for sort in ("", "_prefix", "_pubkey"):
        quota = getattr(options, f"nostr_event{sort}_quota" if sort != "_pubkey" else "nostr_pubkey_quota")
        twin = getattr(options, f"nostr_ephemeral{sort}_quota")
        assert (twin.count, twin.burst) == (5 * quota.count, 5 * quota.burst)
