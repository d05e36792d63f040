"""The listening socket of `tcp:` endpoints under a real reactor: floods, silent peers, and no descriptors left."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, NEVER_S, Launch, Relay, asynchronous
from tests.end_to_end.peers import pair
from tests.end_to_end.raw import ask, head, raw, statuses, upgrade

ATTEMPT = upgrade("/v1/client", "unclaimed")
HEALTH = head("/healthz", ("Host", "relay"))
HANDSHAKES = 'pyryrelay_connections{kind="handshake"}'
DESCRIPTORS = 64
"""The limit of a process that soon has no descriptor left: its own, and about thirty connections."""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does this")


@asynchronous
async def test_flood_of_refusals(start_relay: StartRelay) -> None:
    """Refusals under a flood are complete, counted one by one and hold nothing, while other peers relay."""
    relay = start_relay("--upgrade-quota", "1/day burst 2")
    async with pair(relay.uri, source="127.0.0.9") as peers:
        assert await statuses(relay.address, ATTEMPT, 2) == [101, 101]
        floods = asyncio.gather(*(statuses(relay.address, ATTEMPT, 50) for _ in range(8)))
        for _ in range(20):
            await peers.exchange()
        assert {status for flood in await floods for status in flood} == {429}
        assert relay.refusals("rate_limit") == 64
        assert relay.refusals("queue_full") == 400 - 64
    answer = await ask(relay.address, ATTEMPT)
    assert (answer.status, answer.body) == (429, b"")
    # The last of 64 places in the queue.
    assert int(answer.fields["retry-after"]) == 64 * 86_400 + 2


@asynchronous
async def test_every_kind_of_tcp_endpoint(start_relay: StartRelay) -> None:
    """On IPv4 and dual-stack endpoints the client is the same, and so is its quota."""
    launch = Launch([f"tcp:{{port}}:interface={LOCALHOST}", r"tcp6:0:interface=\:\:"])
    relay = start_relay("--upgrade-quota", "1/day burst 2", launch=launch)
    (port,) = (
        int(line.split()[-1])
        for line in relay.log().splitlines()
        if "Acceptor starting on" in line and str(relay.port) not in line
    )
    assert await statuses(relay.address, ATTEMPT, 1) == [101]
    assert await statuses((LOCALHOST, port), ATTEMPT, 2) == [101, 429]
    assert await statuses(relay.address, ATTEMPT, 1) == [429]
    assert await statuses(("::1", port), ATTEMPT, 3) == [101, 101, 429]


@linux
@asynchronous
async def test_silence_costs_nothing(start_relay: StartRelay) -> None:
    """A connection that has sent nothing takes no place, so that more than the cap may be silent."""
    # The kernel waits for as long as the relay waits for a head.
    relay = start_relay(launch=Launch(times={"head_timeout_s": NEVER_S}))
    async with contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(raw(relay.address)) for _ in range(80)]
        assert (await ask(relay.address, HEALTH)).status == 200
        assert relay.metrics()[HANDSHAKES] == 0
        await silent[0].send(HEALTH)
        assert (await silent[0].response()).status == 200


@linux
@pytest.mark.slow
@asynchronous
async def test_silence_ends(start_relay: StartRelay) -> None:
    """The kernel hands over a silent connection after some seconds, and the relay ends it then."""
    relay = start_relay()
    async with raw(relay.address) as peer:
        await relay.metric_will_be(HANDSHAKES, 1)
        with contextlib.suppress(ConnectionResetError):
            assert await peer.rest() == b""
    await relay.metric_will_be(HANDSHAKES, 0)


@linux
@asynchronous
async def test_no_descriptors_left(start_relay: StartRelay) -> None:
    """Without descriptors one line says so and no CPU is wasted; connections are accepted once there are some."""
    if not (prlimit := shutil.which("prlimit")):
        pytest.skip("prlimit is not there")
    launch = Launch(prefix=[prlimit, f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"])
    relay = start_relay("--jail-file", "", launch=launch)
    async with pair(relay.uri, source="127.0.0.9") as peers:
        with contextlib.ExitStack() as stack:
            for number in range(2 * DESCRIPTORS):
                source = f"127.0.1.{number % 8}"
                peer = stack.enter_context(socket.create_connection(relay.address, DEADLINE_S, (source, 0)))
                peer.sendall(b"GET")
            await relay.log_will_have("cannot accept connections")
            before = cpu_s(relay)
            for _ in range(10):
                await peers.exchange()
                await asyncio.sleep(0.1)
            assert cpu_s(relay) - before < 0.5, "it does not spin"
        assert (await ask(relay.address, HEALTH)).status == 200
        await peers.exchange()
    lines = [line for line in relay.log().splitlines() if "cannot accept connections" in line]
    assert len(lines) <= 2
    assert "Too many open files; trying again every 0.25 s (0 more left out)" in lines[0]


def cpu_s(relay: Relay) -> float:
    """Return the seconds of CPU that the process has used."""
    with open(f"/proc/{relay.process.pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9
