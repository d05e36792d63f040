"""Caps on connections: per prefix, binaries per address, per kind, and places kept for addresses that hold few."""

from __future__ import annotations

import contextlib

from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import GENEROUS, Relay, asynchronous
from tests.end_to_end.raw import ask, raw_peer, statuses, upgrade

ATTEMPT = upgrade("/v1/server", "one-more")


async def _hold(stack: contextlib.AsyncExitStack, relay: Relay, source: str, count: int) -> None:
    """Keep that many binaries connected from one address."""
    for number in range(count):
        name = f"{source}-{number}".replace(".", "-")
        await stack.enter_async_context(raw_peer(relay, name, "/v1/server", source=source))


@asynchronous
async def test_cap_per_prefix(start_relay: StartRelay) -> None:
    """A /24 holds at most its cap of connections, over however many addresses."""
    relay = start_relay(*GENEROUS, "--max-connections-per-prefix", "3")
    async with contextlib.AsyncExitStack() as stack:
        for source in ("127.1.2.1", "127.1.2.2", "127.1.2.3"):
            await _hold(stack, relay, source, 1)
        answer = await ask(relay.address, ATTEMPT, source="127.1.2.4")
        assert (answer.status, answer.fields["retry-after"]) == (429, "5")
        assert await statuses(relay.address, ATTEMPT, 1, source="127.1.3.4") == [101]
        assert relay.metrics()['pyryrelay_refusals_total{reason="prefix_cap"}'] == 1
    await relay.all_leases_end()
    assert await statuses(relay.address, ATTEMPT, 1, source="127.1.2.4") == [101]


@asynchronous
async def test_the_last_tenth_is_for_addresses_that_hold_few(start_relay: StartRelay) -> None:
    """A nearly full relay refuses addresses that hold 4 connections or more, and serves others until it is full."""
    relay = start_relay(*GENEROUS, "--max-connections", "20")
    async with contextlib.AsyncExitStack() as stack:
        await _hold(stack, relay, "127.0.1.1", 3)
        await _hold(stack, relay, "127.0.1.2", 15)
        # Two places of twenty are left.
        assert (await ask(relay.address, ATTEMPT, source="127.0.1.2")).status == 503
        await _hold(stack, relay, "127.0.1.3", 1)
        await stack.enter_async_context(raw_peer(relay, "the-fourth", "/v1/server", source="127.0.1.1"))
        for source in ("127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4"):
            answer = await ask(relay.address, ATTEMPT, source=source)
            assert (answer.status, answer.fields["retry-after"]) == (503, "5")
    await relay.all_leases_end()
    assert await statuses(relay.address, ATTEMPT, 1, source="127.0.1.2") == [101]


@asynchronous
async def test_four_connections_are_not_few(start_relay: StartRelay) -> None:
    """The last places are for addresses that hold at most 3 connections."""
    relay = start_relay(*GENEROUS, "--max-connections", "20")
    async with contextlib.AsyncExitStack() as stack:
        await _hold(stack, relay, "127.0.1.1", 4)
        await _hold(stack, relay, "127.0.1.2", 14)
        assert (await ask(relay.address, ATTEMPT, source="127.0.1.1")).status == 503
        await _hold(stack, relay, "127.0.1.3", 2)
        assert (await ask(relay.address, ATTEMPT, source="127.0.1.4")).status == 503


@asynchronous
async def test_binaries_per_address(start_relay: StartRelay) -> None:
    """The cap on binaries of an address affects neither its phones nor other addresses."""
    relay = start_relay(*GENEROUS, "--max-binaries-per-address", "2")
    async with contextlib.AsyncExitStack() as stack:
        await _hold(stack, relay, "127.0.1.1", 2)
        answer = await ask(relay.address, ATTEMPT, source="127.0.1.1")
        assert (answer.status, answer.fields["retry-after"]) == (429, "5")
        phone = upgrade("/v1/client", "127-0-1-1-0")
        assert await statuses(relay.address, phone, 3, source="127.0.1.1") == [101] * 3
        assert await statuses(relay.address, ATTEMPT, 1, source="127.0.1.2") == [101]


@asynchronous
async def test_binaries_per_address_by_default(start_relay: StartRelay) -> None:
    """By default an address may have sixteen binaries."""
    relay = start_relay("--upgrade-quota", "off")
    async with contextlib.AsyncExitStack() as stack:
        await _hold(stack, relay, "127.0.1.1", 16)
        assert (await ask(relay.address, ATTEMPT, source="127.0.1.1")).status == 429


@asynchronous
async def test_caps_per_kind(start_relay: StartRelay) -> None:
    """A binary or phone over the cap of its kind gets 503, and the other kind is not affected."""
    relay = start_relay(*GENEROUS, "--max-binary-connections", "2", "--max-phone-connections", "1")
    async with contextlib.AsyncExitStack() as stack:
        await _hold(stack, relay, "127.0.1.1", 2)
        assert (await ask(relay.address, ATTEMPT, source="127.0.1.2")).status == 503
        phone = upgrade("/v1/client", "127-0-1-1-0")
        await stack.enter_async_context(raw_peer(relay, "127-0-1-1-0", source="127.0.1.3"))
        answer = await ask(relay.address, phone, source="127.0.1.4")
        assert (answer.status, answer.fields["retry-after"]) == (503, "5")
        assert relay.metrics()['pyryrelay_refusals_total{reason="route_cap"}'] == 2
