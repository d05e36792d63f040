"""The client address from one of several headers and over IPv6, its explanation, and the warning about proxies."""

from __future__ import annotations

import pytest
from tests.end_to_end.admin import pyryrelay, told
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Launch, asynchronous, http_get
from tests.end_to_end.raw import ask, statuses, upgrade

BEHIND = ("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1", "--upgrade-quota", "1/hour burst 2")


def _attempt(*fields: tuple[str, str]) -> bytes:
    return upgrade("/v1/client", "unclaimed", *fields)


@pytest.mark.parametrize(
    ("header", "value", "same"),
    [
        ("forwarded", "for=192.0.2.1;proto=https", "for=198.51.100.9, For=192.0.2.1"),
        ("forwarded", 'for="[2001:db8:1:2::3]:4711"', 'for="[2001:db8:1:2::4]";by=10.0.0.1'),
        ("forwarded", "for=192.0.2.1, for=127.0.0.1", "for=192.0.2.1"),
        ("x-real-ip", "192.0.2.1", " 192.0.2.1 "),
        ("x-real-ip", "2001:db8:1:2::3", "2001:db8:1:2:ffff::"),
        ("cf-connecting-ip", "192.0.2.1", "::ffff:192.0.2.1"),
    ],
)
@asynchronous
async def test_header(header: str, value: str, same: str, start_relay: StartRelay) -> None:
    """The chosen header names the client in each of its forms, and no other header does."""
    relay = start_relay(*BEHIND, "--client-address-header", header)
    other = ("X-Forwarded-For", "192.0.2.200")
    assert await statuses(relay.address, _attempt((header, value), other), 2) == [101, 101]
    answer = await ask(relay.address, _attempt((header, same), ("X-Forwarded-For", "192.0.2.201")))
    assert answer.status == 429
    assert answer.fields["ratelimit-policy"].startswith('"rate_limit"')
    # A peer that is no proxy is the client, whatever its headers name.
    assert await statuses(relay.address, _attempt((header, value)), 2, source="127.0.0.2") == [101, 101]


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        ("forwarded", [("Forwarded", "for=_hidden")]),
        ("forwarded", [("Forwarded", "for=192.0.2.1, for")]),
        ("forwarded", [("Forwarded", "for=unknown")]),
        ("x-real-ip", [("X-Real-IP", "192.0.2.1"), ("X-Real-IP", "192.0.2.1")]),
        ("x-real-ip", [("X-Real-IP", "192.0.2.1, 192.0.2.2")]),
        ("cf-connecting-ip", [("CF-Connecting-IP", "no-address")]),
    ],
)
@asynchronous
async def test_a_header_that_names_no_address(
    header: str, fields: list[tuple[str, str]], start_relay: StartRelay
) -> None:
    """A request whose header names no address is refused, and spends no client's token."""
    relay = start_relay(*BEHIND, "--client-address-header", header)
    assert await statuses(relay.address, _attempt(*fields), 3) == [429] * 3
    metrics = relay.metrics()
    assert metrics['pyryrelay_refusals_total{reason="unattributable"}'] == 3
    assert metrics["pyryrelay_tracked_addresses"] == 0


@asynchronous
async def test_trusted_proxy_on_ipv6(start_relay: StartRelay) -> None:
    """A trusted proxy may connect over IPv6."""
    launch = Launch(listen=["tcp:{port}:interface=\\:\\:1"])
    relay = start_relay(*BEHIND, "--trusted-proxy", "::1", launch=launch)
    attempt = _attempt(("X-Forwarded-For", "192.0.2.1, 127.0.0.1"))
    assert await statuses(("::1", relay.port), attempt, 3) == [101, 101, 429]
    assert "refused 192.0.2.1 429 rate_limit" in relay.log()


def test_whoami(start_relay: StartRelay) -> None:
    """`pyryrelay whoami` explains each step to the client address under the current settings."""
    relay = start_relay(*BEHIND, "--trusted-proxy", "10.0.0.0/8")
    forwarded = "X-Forwarded-For: 203.0.113.9, 192.0.2.7, 10.0.0.7"
    assert told(relay, "whoami", "--peer", "10.0.0.1", "--header", forwarded) == [
        "peer 10.0.0.1 is a trusted proxy",
        "entry 1 from the right, 10.0.0.7, is a trusted proxy: skipped",
        "entry 2 from the right, 192.0.2.7, is the client",
    ]
    assert told(relay, "whoami", "--peer", "192.0.2.1", "--header", forwarded) == [
        "peer 192.0.2.1 is no trusted proxy: it is the client, whatever it forwards"
    ]
    assert told(relay, "whoami", "--peer", "10.0.0.1", "--header", "X-Forwarded-For: 2001:db8:1:2::3")[-1] == (
        "IPv6 folded to 2001:db8:1:2::/64"
    )
    assert told(relay, "whoami", "--peer", "10.0.0.1", "--header", "Forwarded: for=192.0.2.1")[0] == (
        "forwarded is not read: client addresses are taken from x-forwarded-for"
    )
    assert told(relay, "whoami")[0] == "peer 127.0.0.1 is a trusted proxy"
    status, text = http_get(relay.admin_port, "/whoami?peer=10.0.0.1&header=203.0.113.9")
    assert (status, text.splitlines()[-1]) == (200, "entry 1 from the right, 203.0.113.9, is the client")
    outcome = pyryrelay(relay, "whoami", "--peer", "no-address")
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert "'no-address'" in outcome.stderr
    assert relay.metrics()["pyryrelay_tracked_addresses"] == 0


WARNING = "which sends forwarding headers that are not trusted"


@asynchronous
async def test_hidden_clients_are_warned_about(start_relay: StartRelay) -> None:
    """A proxy that is not trusted and makes nearly all attempts is warned about once."""
    relay = start_relay()
    for number in range(60):
        attempt = _attempt(("X-Forwarded-For", f"192.0.2.{number}"))
        await statuses(relay.address, attempt, 2, source="127.0.0.9")
    (line,) = await relay.log_will_have(WARNING)
    assert "come from 127.0.0.9" in line
    assert "add --trust-x-forwarded-for and --trusted-proxy" in line


@asynchronous
async def test_a_load_balancer_that_is_not_trusted(start_relay: StartRelay) -> None:
    """A load balancer that hides its clients is warned about before it is jailed, with the fix."""
    relay = start_relay("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.1")
    for number in range(60):
        await statuses(relay.address, _attempt(("X-Forwarded-For", f"192.0.2.{number}, 198.51.100.250")), 1)
    told = "come from 198.51.100.250, while the forwarding header names further addresses behind it"
    await relay.log_will_have(told)
    assert "add its address to --trusted-proxy" in relay.log()
    assert "in jail" not in relay.log()


@pytest.mark.parametrize(
    ("options", "share", "fields"),
    [
        (("--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.9"), 1.0, [("X-Forwarded-For", "192.0.2.1")]),
        ((), 1.0, []),
        ((), 0.8, [("X-Forwarded-For", "192.0.2.1")]),
    ],
)
@asynchronous
async def test_nothing_to_warn_about(
    options: tuple[str, ...], share: float, fields: list[tuple[str, str]], start_relay: StartRelay
) -> None:
    """A trusted proxy, a client that forwards nothing and one proxy among others cause no warning."""
    relay = start_relay(*options, "--jail-after", "off")
    for number in range(120):
        source = "127.0.0.9" if number % 10 < 10 * share else "127.0.0.10"
        await statuses(relay.address, _attempt(*fields), 1, source=source)
    assert WARNING not in relay.log()
