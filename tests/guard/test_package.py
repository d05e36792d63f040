"""The guard as a package of its own."""

from __future__ import annotations

import pyryrelay.guard as guard


def test_every_public_name_exists() -> None:
    """Every announced name can be imported."""
    assert sorted(set(guard.__all__)) == sorted(guard.__all__)
    for name in guard.__all__:
        assert hasattr(guard, name)


def test_alone_as_the_docstring_shows() -> None:
    """A trust policy and a gate are enough to admit a client behind a proxy, or to refuse it with a wait."""
    trust = guard.TrustPolicy(trust_forwarded=True, proxies=guard.CidrSet("10.0.0.0/8"))
    gate = guard.Gate(guard.GateConfig(upgrade_quota=guard.Quota.parse("1/minute")))
    client = trust.derive("10.0.0.7", ["6.6.6.6, 198.51.100.4"])
    answer = gate.admit(client, "/chat", 0.0)
    assert isinstance(answer, guard.Lease)
    with answer:
        assert gate.leases.connections == 1
    assert gate.leases.connections == 0
    refusal = gate.admit(client, "/chat", 0.5)
    assert isinstance(refusal, guard.Refusal)
    assert (refusal.status, refusal.phrase, refusal.retry_after_header) == (429, "Too Many Requests", "60")
    assert gate.strike(client, refusal.reason, 0.5) is None
