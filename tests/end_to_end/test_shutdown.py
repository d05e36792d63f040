"""SIGTERM and SIGINT: an orderly end with exit code 0, which `Relay.wait` checks, within bounded time."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Relay, answers, asynchronous, eventually, http_get
from tests.end_to_end.peers import closed, pair, phone, send_until_closed, until_paused
from tests.end_to_end.raw import head, raw, raw_peer, upgrade

SHUTTING_DOWN = (1001, "shutting down")
DRAIN_S = 10.0
SLACK_S = 5.0
"""For a busy machine."""


async def _ended(relay: Relay, number: signal.Signals = signal.SIGTERM) -> float:
    """Send a signal and wait for the orderly end; the seconds that took."""
    start = time.monotonic()
    relay.signal(number)
    await eventually(lambda: relay.process.poll() is not None, "the relay ends")
    relay.wait()
    return time.monotonic() - start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@asynchronous
async def test_everyone_is_told(number: signal.Signals, start_relay: StartRelay) -> None:
    """Binaries, phones, and phones in a grace are closed with 1001."""
    relay = start_relay()
    async with pair(relay.uri) as one, pair(relay.uri) as orphan:
        await one.exchange()
        await orphan.binary.close()
        assert await _ended(relay, number) < DRAIN_S
        for peer in (one.binary, one.phone, orphan.phone):
            assert await closed(peer) == SHUTTING_DOWN


@asynchronous
async def test_nobody_there(start_relay: StartRelay) -> None:
    """Without peers the end comes at once, also for connections that are not upgraded."""
    relay = start_relay()
    async with raw(relay.address) as idle, raw(relay.address) as halfway:
        await halfway.send(b"GET /healthz HTTP/1.1\r\n")
        assert await _ended(relay) < SLACK_S
        # Where the kernel kept the silent connection to itself, it is the first byte that finds nobody.
        await idle.send(b"G")
        await idle.gone()
        await halfway.gone()


@pytest.mark.slow
@asynchronous
async def test_peers_that_never_answer(start_relay: StartRelay) -> None:
    """Peers that ignore the close are cut off, also one with frames waiting for it; its paused phone is told.

    Meanwhile nobody is let in, and health says so.
    """
    relay = start_relay()
    async with (
        raw(relay.address) as early,
        raw_peer(relay, "deaf", "/v1/server") as deaf,
        raw_peer(relay, "full", "/v1/server", receive_bytes=16384) as full,
        phone(relay.uri, "full") as paused,
    ):
        asking = head("/healthz", ("Host", "relay"))
        await early.send(asking[:1])
        sending = asyncio.create_task(send_until_closed(paused, f'"{"x" * 100_000}"'))
        await until_paused(relay)
        start = time.monotonic()
        relay.signal()
        await eventually(lambda: not answers(relay.port), "it listens no more")
        # Connected before the end began, and asks only now.
        await early.send(asking[1:])
        assert (await early.response()).status == 503
        assert b'"status":"draining"' in await early.rest()
        assert http_get(relay.admin_port, "/healthz")[0] == 503
        assert await deaf.close_code() == 1001
        assert await closed(paused) == SHUTTING_DOWN
        await asyncio.wait_for(sending, DEADLINE_S)
        await eventually(lambda: relay.process.poll() is not None, "the relay ends")
        assert time.monotonic() - start < DRAIN_S + SLACK_S
        relay.wait()
        await deaf.gone()
        await full.gone()


@asynchronous
async def test_second_signal_hurries(start_relay: StartRelay) -> None:
    """A second SIGTERM ends the wait for peers that do not answer."""
    relay = start_relay()
    async with raw_peer(relay, "x", "/v1/server") as deaf:
        start = time.monotonic()
        relay.signal()
        assert await deaf.close_code() == 1001
        await _ended(relay)
        assert time.monotonic() - start < 4, "shorter than any wait for a closing handshake"
        await deaf.gone()


@asynchronous
async def test_upgrade_while_draining(start_relay: StartRelay) -> None:
    """An attempt on a connection that was open before gets 503 while peers are waited for."""
    relay = start_relay()
    async with raw(relay.address) as early, raw_peer(relay, "x", "/v1/server"):
        request = upgrade("/v1/client", "x")
        await early.send(request[:1])
        await eventually(lambda: relay.connections()['pyryrelay_connections{kind="handshake"}'] == 1, "it is accepted")
        relay.signal()
        await eventually(lambda: not answers(relay.port), "it listens no more")
        await early.send(request[1:])
        assert (await early.response()).status == 503
        assert await early.rest() == b""
        await _ended(relay)
