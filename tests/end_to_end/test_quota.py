"""The quota per address, lists and caps, under floods from other addresses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import NEVER_S, SLOW, Launch, Relay, asynchronous
from tests.end_to_end.peers import Pair, binary, fresh_id, pair, phone
from tests.end_to_end.raw import Address, Response, ask, head, raw, raw_peer, statuses, upgrade

ATTEMPT = upgrade("/v1/client", "unclaimed")
HEALTH = head("/healthz", ("Host", "relay"))
PASSED = [101] * 20


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with the default burst, of which no token comes back; each test uses addresses of its own."""
    relay = Relay(tmp_path_factory.mktemp("limited"), SLOW)
    yield relay
    relay.stop()


@asynchronous
async def test_burst(limited: Relay) -> None:
    """Twenty upgrades pass at once; the next gets 429 with Retry-After, and its connection is closed."""
    assert await statuses(limited.address, ATTEMPT, 20, source="127.0.0.10") == PASSED
    answer = await ask(limited.address, ATTEMPT, source="127.0.0.10")
    assert (answer.status, answer.body) == (429, b"")
    assert answer.fields["content-length"] == "0"
    assert answer.fields["connection"] == "close"
    assert 4000 < int(answer.fields["retry-after"]) <= 4320


@asynchronous
async def test_token_comes_back(start_relay: StartRelay) -> None:
    """Refused attempts cost nothing: a client that keeps trying is served as soon as a token is back."""
    relay = start_relay("--upgrade-quota", "60/minute burst 2")
    # On a busy machine an attempt may take longer than a token needs to come back, but not always.
    while (answer := await ask_or_join(relay)).status == 101:
        pass
    assert (answer.status, answer.fields["retry-after"]) == (429, "1")
    while await statuses(relay.address, ATTEMPT, 1) == [429]:
        assert relay.refusals("rate_limit", "queue_full") < 10_000
        await asyncio.sleep(0.02)


async def ask_or_join(relay: Relay) -> Response:
    """Return the status of an attempt; an upgraded connection is closed again."""
    async with raw(relay.address) as peer:
        await peer.send(ATTEMPT)
        return await peer.response()


@pytest.mark.parametrize(
    ("source", "attempt", "status"),
    [
        ("127.0.0.11", head("/v1/client", ("Host", "relay"), ("Upgrade", "h2c")), 426),
        ("127.0.0.12", upgrade("/v1/client", "not acceptable"), 400),
        ("127.0.0.13", upgrade("/v1/client", "x").replace(b"GET", b"PUT"), 405),
    ],
)
@asynchronous
async def test_bad_attempts_are_attempts(source: str, attempt: bytes, status: int, limited: Relay) -> None:
    """An attempt that is refused for another reason spends its token, and 429 precedes that reason."""
    assert await statuses(limited.address, attempt, 21, source=source) == [status] * 20 + [429]
    assert await statuses(limited.address, ATTEMPT, 1, source=source) == [429]


@asynchronous
async def test_other_paths_cost_nothing(limited: Relay) -> None:
    """Unknown paths and /healthz spend no token."""
    for request in (head("/nothing", ("Host", "relay")), HEALTH):
        await statuses(limited.address, request, 25, source="127.0.0.14")
    assert await statuses(limited.address, ATTEMPT, 21, source="127.0.0.14") == [*PASSED, 429]


async def _flood(address: Address, attempt: bytes, source: str | None = None) -> int:
    """Make hundreds of attempts over several connections at a time, and return how many were upgraded."""
    floods = (statuses(address, attempt, 50, source=source) for _ in range(8))
    found = [status for flood in await asyncio.gather(*floods) for status in flood]
    assert set(found) <= {101, 429}
    return found.count(101)


@asynchronous
async def test_flood_from_another_address(limited: Relay) -> None:
    """While one address floods and is held to its burst, another one connects, relays and reconnects."""
    server_id = fresh_id()
    flood = asyncio.create_task(_flood(limited.address, ATTEMPT, "127.0.0.2"))
    async with binary(limited.uri, server_id, source="127.0.0.3") as one:
        for _ in range(15):
            async with phone(limited.uri, server_id, source="127.0.0.3") as other:
                await Pair(server_id, one, other).exchange()
    assert await flood == 20


@asynchronous
async def test_flood_behind_a_proxy(start_relay: StartRelay) -> None:
    """Behind a trusted proxy the forwarded address counts: the right-most entry that is no proxy."""
    relay = start_relay(
        *SLOW,
        "--trust-x-forwarded-for",
        "--trusted-proxy",
        "127.0.0.1",
        "--trusted-proxy",
        "10.0.0.0/8",
        "--jail-after",
        "off",
    )

    def attempt(forwarded: str) -> bytes:
        return upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", forwarded))

    flood = asyncio.create_task(_flood(relay.address, attempt("198.51.100.3, 192.0.2.1, 10.1.2.3")))
    async with pair(relay.uri, additional_fields=[("X-Forwarded-For", "192.0.2.1, 192.0.2.2")]) as peers:
        for _ in range(20):
            await peers.exchange()
    assert await flood == 20
    assert await statuses(relay.address, attempt("192.0.2.2, 192.0.2.1"), 1) == [429]
    assert await statuses(relay.address, attempt("192.0.2.1:4711"), 1) == [429]
    assert await statuses(relay.address, attempt("192.0.2.1, 192.0.2.3"), 21) == [*PASSED, 429]


@asynchronous
async def test_forwarded_address_of_an_untrusted_peer(start_relay: StartRelay) -> None:
    """A peer that is no trusted proxy is counted by its own address, whatever it forwards."""
    relay = start_relay(*SLOW, "--trust-x-forwarded-for", "--trusted-proxy", "127.0.0.9")
    found = []
    for number in range(21):
        attempt = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", f"192.0.2.{number}"))
        found += await statuses(relay.address, attempt, 1)
    assert found == [*PASSED, 429]


@asynchronous
async def test_ipv6_clients_share_their_prefix(start_relay: StartRelay) -> None:
    """Addresses of one /64 share a quota; those of the next /64 have another."""
    relay = start_relay(*SLOW, "--trust-x-forwarded-for")
    found = []
    for number in range(21):
        attempt = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", f"[2001:db8:0:1::{number:x}]:443"))
        found += await statuses(relay.address, attempt, 1)
    assert found == [*PASSED, 429]
    other = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", "2001:db8:0:2::1"))
    assert await statuses(relay.address, other, 1) == [101]


@pytest.mark.parametrize("forwarded", ["unknown", "_hidden", "192.0.2.300", "192.0.2.1, unknown", "\xff", "1.2.3.4 5"])
@asynchronous
async def test_requests_without_a_client_address(forwarded: str, unattributed: Relay) -> None:
    """A request without a client address gets 429, and spends no client's token."""
    before = unattributed.metrics()
    attempt = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", forwarded))
    assert await statuses(unattributed.address, attempt, 25) == [429] * 25
    answer = await ask(unattributed.address, attempt)
    assert answer.fields["retry-after"] == "5"
    after = unattributed.metrics()
    refused = 'pyryrelay_refusals_total{reason="unattributable"}'
    assert after[refused] == before[refused] + 26
    assert after["pyryrelay_tracked_addresses"] == 0


@pytest.fixture(scope="module")
def unattributed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that trusts any proxy."""
    relay = Relay(tmp_path_factory.mktemp("unattributed"), ["--trust-x-forwarded-for"])
    yield relay
    relay.stop()


@asynchronous
async def test_lists(start_relay: StartRelay) -> None:
    """Denied addresses get 403 on every path; allowed ones have no quota, even within a denied network."""
    relay = start_relay(*SLOW, "--deny", "127.0.0.16/28", "--allow", "127.0.0.20")
    for request in (ATTEMPT, HEALTH):
        denied = await ask(relay.address, request, source="127.0.0.17")
        assert (denied.status, denied.body) == (403, b"")
        assert "retry-after" not in denied.fields
    assert await statuses(relay.address, ATTEMPT, 40, source="127.0.0.20") == [101] * 40
    assert await statuses(relay.address, ATTEMPT, 21, source="127.0.0.1") == [*PASSED, 429]


@asynchronous
async def test_denied_behind_a_proxy(start_relay: StartRelay) -> None:
    """The deny list applies to the forwarded address, too."""
    relay = start_relay("--trust-x-forwarded-for", "--deny", "192.0.2.0/24")
    for forwarded, status in (("192.0.2.9", 403), ("192.0.3.9", 101)):
        attempt = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", forwarded))
        assert await statuses(relay.address, attempt, 1) == [status]


@asynchronous
async def test_cap_per_address(start_relay: StartRelay) -> None:
    """An address over its cap of connections gets 429, until one of them ends."""
    relay = start_relay("--max-connections-per-address", "2")
    async with raw_peer(relay, "a", "/v1/server"), binary(relay.uri, "b") as leaving:
        answer = await ask(relay.address, upgrade("/v1/server", "c"))
        assert (answer.status, answer.fields["retry-after"]) == (429, "5")
        assert await statuses(relay.address, ATTEMPT, 1, source="127.0.0.2") == [101]
        await leaving.close()
        held = 'pyryrelay_connections{kind="server"}'
        await relay.metric_will_be(held, 1)
        assert await statuses(relay.address, upgrade("/v1/server", "d"), 1) == [101]


@asynchronous
async def test_cap_of_all(start_relay: StartRelay) -> None:
    """A relay that is full answers 503 with Retry-After to all clients, and /healthz goes on."""
    relay = start_relay("--max-connections", "2", "--max-connections-per-address", "2")
    async with raw_peer(relay, "a", "/v1/server"), raw_peer(relay, "b", "/v1/server"):
        for source in ("127.0.0.1", "127.0.0.2"):
            answer = await ask(relay.address, ATTEMPT, source=source)
            assert (answer.status, answer.fields["retry-after"]) == (503, "5")
        assert (await ask(relay.address, HEALTH)).status == 200


@asynchronous
async def test_cap_on_handshakes(start_relay: StartRelay) -> None:
    """One address may keep 64 connections waiting; the next is refused, and other addresses are served."""
    limited = start_relay(launch=Launch(times={"head_timeout_s": NEVER_S}))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(64):
            idle = await stack.enter_async_context(raw(limited.address, source="127.0.0.30"))
            await idle.send(b"GET /healthz")
        assert (await ask(limited.address, HEALTH, source="127.0.0.30")).status == 429
        assert (await ask(limited.address, HEALTH, source="127.0.0.31")).status == 200
    await limited.metric_will_be('pyryrelay_connections{kind="handshake"}', 0)
    assert (await ask(limited.address, HEALTH, source="127.0.0.30")).status == 200
