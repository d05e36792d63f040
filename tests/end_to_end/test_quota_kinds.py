"""Quotas besides the one for upgrades: for plain requests, for prefixes and for IPv6, and their header fields.

Every address of 127.0.0.0/8 is a client of its own, and 127.1.2.0/24 is one of its prefixes.
"""

from __future__ import annotations

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Launch, asynchronous
from tests.end_to_end.raw import ask, head, statuses, upgrade

ATTEMPT = upgrade("/v1/client", "unclaimed")
NOTHING = head("/nothing", ("Host", "relay"))
HEALTH = head("/healthz", ("Host", "relay"))
ON_IPV6 = Launch(listen=["tcp:{port}:interface=\\:\\:1"])


@asynchronous
async def test_quotas_off(start_relay: StartRelay) -> None:
    """`off` turns off the quotas of upgrades, prefixes and plain requests, and no address is remembered then."""
    relay = start_relay("--upgrade-quota", "off", "--prefix-quota", "off", "--http-quota", "off")
    assert await statuses(relay.address, ATTEMPT, 150) == [101] * 150
    assert await statuses(relay.address, NOTHING, 130) == [404] * 130
    assert relay.metrics()["pyryrelay_tracked_addresses"] == 0


@asynchronous
async def test_upgrade_quota_off_leaves_the_others(start_relay: StartRelay) -> None:
    """Each quota is turned off by itself."""
    relay = start_relay("--upgrade-quota", "off", "--prefix-quota", "1/hour burst 30")
    assert await statuses(relay.address, ATTEMPT, 31) == [101] * 30 + [429]


@asynchronous
async def test_http_quota(start_relay: StartRelay) -> None:
    """Plain requests have a quota of their own per address; /healthz from this machine is exempt."""
    relay = start_relay("--http-quota", "1/hour burst 3", "--upgrade-quota", "1/hour burst 2")
    assert await statuses(relay.address, NOTHING, 4, source="127.0.0.2") == [404] * 3 + [429]
    answer = await ask(relay.address, NOTHING, source="127.0.0.2")
    assert 3000 < int(answer.fields["retry-after"]) <= 3600
    assert await statuses(relay.address, HEALTH, 10, source="127.0.0.2") == [200] * 10
    assert await statuses(relay.address, ATTEMPT, 3, source="127.0.0.2") == [101, 101, 429]
    assert await statuses(relay.address, NOTHING, 1, source="127.0.0.3") == [404]
    assert relay.metrics()['pyryrelay_refusals_total{reason="http_rate_limit"}'] == 2


@asynchronous
async def test_http_quota_behind_a_proxy(start_relay: StartRelay) -> None:
    """/healthz is not exempt for clients behind a proxy."""
    relay = start_relay("--http-quota", "1/hour burst 3", "--trust-x-forwarded-for")
    health = head("/healthz", ("Host", "relay"), ("X-Forwarded-For", "192.0.2.1"))
    assert await statuses(relay.address, health, 4) == [200] * 3 + [429]
    assert await statuses(relay.address, HEALTH, 4) == [200] * 4


@asynchronous
async def test_prefix_quota(start_relay: StartRelay) -> None:
    """All addresses of one /24 share a second quota; those of the next /24 do not."""
    relay = start_relay("--prefix-quota", "1/hour burst 5")
    found = [await statuses(relay.address, ATTEMPT, 1, source=f"127.1.2.{host}") for host in range(1, 8)]
    assert found == [[101]] * 5 + [[429]] * 2
    assert await statuses(relay.address, ATTEMPT, 1, source="127.1.3.1") == [101]
    answer = await ask(relay.address, ATTEMPT, source="127.1.2.250")
    assert answer.fields["ratelimit-policy"] == '"prefix_rate_limit";q=1;w=3600'
    assert relay.metrics()['pyryrelay_refusals_total{reason="prefix_rate_limit"}'] == 3


@asynchronous
async def test_prefix_quota_spares_the_quota_of_the_address(start_relay: StartRelay) -> None:
    """An attempt needs a token of both quotas, and spends neither if one of them refuses it."""
    relay = start_relay("--prefix-quota", "1/hour burst 4", "--upgrade-quota", "1/hour burst 3")
    assert await statuses(relay.address, ATTEMPT, 6, source="127.1.2.1") == [101] * 3 + [429] * 3
    # Three of four are spent, since the refused ones cost the prefix nothing.
    assert await statuses(relay.address, ATTEMPT, 2, source="127.1.2.2") == [101, 429]
    assert await statuses(relay.address, ATTEMPT, 1, source="127.1.3.2") == [101]


@asynchronous
async def test_allowed_addresses_have_no_quota(start_relay: StartRelay) -> None:
    """The allow list exempts from every quota, and allowed clients spend no token of their prefix."""
    relay = start_relay("--allow", "127.1.2.1", "--prefix-quota", "1/hour burst 1", "--http-quota", "1/hour burst 1")
    assert await statuses(relay.address, ATTEMPT, 30, source="127.1.2.1") == [101] * 30
    assert await statuses(relay.address, NOTHING, 5, source="127.1.2.1") == [404] * 5
    assert await statuses(relay.address, ATTEMPT, 2, source="127.1.2.2") == [101, 429]


@pytest.mark.parametrize(
    ("options", "attempt", "policy"),
    [
        (("--upgrade-quota", "10/hour burst 1"), ATTEMPT, '"rate_limit";q=10;w=3600'),
        (("--http-quota", "10/hour burst 1"), NOTHING, '"http_rate_limit";q=10;w=3600'),
    ],
)
@asynchronous
async def test_rate_limit_fields(
    options: tuple[str, ...], attempt: bytes, policy: str, start_relay: StartRelay
) -> None:
    """A 429 for a quota has fields that name the quota, the 0 that remain, and the wait."""
    relay = start_relay(*options)
    await statuses(relay.address, attempt, 1)
    answer = await ask(relay.address, attempt)
    assert answer.status == 429
    assert answer.fields["ratelimit-policy"] == policy
    name = policy.partition(";")[0]
    assert answer.fields["ratelimit"] == f"{name};r=0;t={answer.fields['retry-after']}"


@asynchronous
async def test_caps_have_no_rate_limit_fields(start_relay: StartRelay) -> None:
    """A 429 or 503 for a cap has Retry-After only, since a cap has no tokens."""
    relay = start_relay("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1")
    answer = await ask(relay.address, upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", "no address")))
    assert (answer.status, answer.fields["retry-after"]) == (429, "5")
    assert not {"ratelimit", "ratelimit-policy"} & answer.fields.keys()


@asynchronous
async def test_ipv6_clients_are_counted_by_their_64(start_relay: StartRelay) -> None:
    """Addresses of one /64 share the upgrade quota, those of one /48 the prefix quota."""
    options = ("--upgrade-quota", "1/hour burst 3", "--prefix-quota", "1/hour burst 7", "--trust-x-forwarded-for")
    relay = start_relay(*options, launch=ON_IPV6)
    found = []
    for network in ("a", "b", "c"):
        for host in range(1, 5):
            client = f"2001:db8:1:{network}::{host}"
            attempt = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", client))
            found += await statuses(("::1", relay.port), attempt, 1)
    assert found == [101, 101, 101, 429, 101, 101, 101, 429, 101, 429, 429, 429]
    elsewhere = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", "2001:db8:2:a::1"))
    assert await statuses(("::1", relay.port), elsewhere, 1) == [101]


@asynchronous
async def test_ipv6_loopback(start_relay: StartRelay) -> None:
    """A listener on ::1 serves, counts and refuses as one on 127.0.0.1."""
    relay = start_relay("--upgrade-quota", "1/hour burst 3", "--http-quota", "1/hour burst 1", launch=ON_IPV6)
    where = ("::1", relay.port)
    assert await statuses(where, ATTEMPT, 4) == [101] * 3 + [429]
    assert await statuses(where, HEALTH, 3) == [200] * 3
    assert await statuses(where, NOTHING, 2) == [404, 429]
    assert "refused ::1 429 rate_limit on client" in relay.log()
