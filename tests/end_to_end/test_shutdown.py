"""SIGTERM and SIGINT: an orderly end with exit code 0, which `Relay.wait` checks.

tests/test_service_stop.py checks how long it takes at most, on a clock of its own. Here a relay that waits without need
waits for ever, and the test fails.
"""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import (
    DEADLINE_S,
    NEVER_S,
    Launch,
    Relay,
    answers,
    asynchronous,
    eventually,
    http_get,
)
from tests.end_to_end.peers import closed, pair, phone, send_until_closed, until_paused
from tests.end_to_end.raw import head, raw, raw_peer, upgrade

SHUTTING_DOWN = (1001, "shutting down")
PATIENT = Launch(times={"close_timeout_s": NEVER_S, "drain_s": NEVER_S, "head_timeout_s": NEVER_S})
"""Peers that do not answer are waited for, for longer than a test may take."""


async def _ended(relay: Relay, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal and wait for the orderly end."""
    relay.signal(number)
    await eventually(lambda: relay.process.poll() is not None, "the relay ends")
    relay.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@asynchronous
async def test_everyone_is_told(number: signal.Signals, start_relay: StartRelay) -> None:
    """Binaries, phones, and phones in a grace are closed with 1001, and the relay ends as soon as all have answered."""
    relay = start_relay(launch=PATIENT)
    async with pair(relay.uri) as one, pair(relay.uri) as orphan:
        await one.exchange()
        await orphan.binary.close()
        await _ended(relay, number)
        for peer in (one.binary, one.phone, orphan.phone):
            assert await closed(peer) == SHUTTING_DOWN


@asynchronous
async def test_an_end_without_peers(start_relay: StartRelay) -> None:
    """Without upgraded connections the end comes at once."""
    relay = start_relay(launch=PATIENT)
    async with raw(relay.address) as idle, raw(relay.address) as halfway:
        await halfway.send(b"GET /healthz HTTP/1.1\r\n")
        await _ended(relay)
        # Where the kernel has not handed over the silent connection, its first byte is reset.
        await idle.send(b"G")
        await idle.gone()
        await halfway.gone()


@pytest.mark.slow
@asynchronous
async def test_peers_that_never_answer(start_relay: StartRelay) -> None:
    """Peers that ignore the close are aborted, even with frames waiting for them; a paused phone is closed as well."""
    relay = start_relay()
    async with (
        raw_peer(relay, "deaf", "/v1/server") as deaf,
        raw_peer(relay, "full", "/v1/server", receive_bytes=16384) as full,
        phone(relay.uri, "full") as paused,
    ):
        sending = asyncio.create_task(send_until_closed(paused, f'"{"x" * 100_000}"'))
        await until_paused(relay)
        relay.signal()
        assert await deaf.close_code() == 1001
        assert await closed(paused) == SHUTTING_DOWN
        await asyncio.wait_for(sending, DEADLINE_S)
        await eventually(lambda: relay.process.poll() is not None, "the relay ends")
        relay.wait()
        await deaf.gone()
        await full.gone()


@asynchronous
async def test_while_peers_are_waited_for(start_relay: StartRelay) -> None:
    """While draining, upgrades are refused on old connections too, and the health page says so on every listener."""
    relay = start_relay(launch=PATIENT)
    health, attempt = head("/healthz", ("Host", "relay")), upgrade("/v1/client", "deaf")
    async with (
        raw(relay.address) as asking,
        raw(relay.address) as attempting,
        raw_peer(relay, "deaf", "/v1/server") as deaf,
    ):
        await asking.send(health[:1])
        await attempting.send(attempt[:1])
        await relay.metric_will_be('pyryrelay_connections{kind="handshake"}', 2)
        relay.signal()
        assert await deaf.close_code() == 1001
        await eventually(lambda: not answers(relay.port), "it listens no more")
        await attempting.send(attempt[1:])
        assert (await attempting.response()).status == 503
        assert await attempting.rest() == b""
        await asking.send(health[1:])
        assert (await asking.response()).status == 503
        assert b'"status":"draining"' in await asking.rest()
        assert http_get(relay.admin_port, "/healthz")[0] == 503
        await _ended(relay)
        await deaf.gone()


@asynchronous
async def test_a_second_signal_ends_the_drain(start_relay: StartRelay) -> None:
    """A second SIGTERM ends the wait for peers that do not answer."""
    relay = start_relay(launch=PATIENT)
    async with raw_peer(relay, "x", "/v1/server") as deaf:
        relay.signal()
        assert await deaf.close_code() == 1001
        await _ended(relay)
        await deaf.gone()
