"""Healthy peers on slow lines, between machines. See `slow_line`. Sizes are bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, Launch, asynchronous
from tests.end_to_end.network import Network, network_or_skip
from tests.end_to_end.peers import (
    Pair,
    binary,
    closed,
    fresh_id,
    phone,
    received,
    send_until_closed,
    until_paused,
)
from tests.end_to_end.slow_line import NEAR, slow_line

MOBILE = 0.05, 1_000_000.0
"""50 ms each way, 1 Mbit/s."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A network with the tests of this module on its server."""
    with network_or_skip() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(500, 300), (25, 60_000), (24, 84_000)])
def test_bursts_to_a_phone_on_a_mobile_line(count: int, size: int, network: Network, start_relay: StartRelay) -> None:
    """A burst of a daemon, at connect or in a long conversation, arrives whole and in order."""
    frames = [f'["{number:04}{"x" * (size - 8)}"]' for number in range(count)]

    @asynchronous
    async def burst() -> None:
        server_id = fresh_id()
        async with (
            binary(f"ws://{LOCALHOST}:{relay.port}", server_id) as holder,
            phone(f"ws://{NEAR}:{relay.port}", server_id, sock=line.connection(relay.port)) as far,
        ):
            pair = Pair(server_id, holder, far)
            conn_id = await pair.exchange()
            for frame in frames:
                await holder.send(f'{{"conn_id":{json.dumps(conn_id)},"frame":{frame}}}')
            assert [await received(far) for _ in frames] == frames
            await pair.exchange()

    with slow_line(network, *MOBILE) as line:
        relay = start_relay(launch=Launch(listen=["tcp:{port}"]))
        burst()


@pytest.mark.slow
def test_a_sibling_at_a_binary_on_a_slow_line(network: Network, start_relay: StartRelay) -> None:
    """While other phones fill the binary's line with long frames, a short frame waits for at most one of them."""
    long_frame = f'"{"x" * 60_000}"'

    @asynchronous
    async def scenario() -> None:
        server_id = fresh_id()
        near = f"ws://{LOCALHOST}:{relay.port}"
        async with contextlib.AsyncExitStack() as stack:
            far = binary(f"ws://{NEAR}:{relay.port}", server_id, sock=line.connection(relay.port))
            holder = await stack.enter_async_context(far)
            sibling = await stack.enter_async_context(phone(near, server_id))
            flooding = [await stack.enter_async_context(phone(near, server_id)) for _ in range(5)]
            floods = [asyncio.create_task(send_until_closed(peer, long_frame)) for peer in flooding]
            for number in range(8):
                await received(holder)
                await sibling.send(str(number))
                overtaken = 0
                while json.loads(await received(holder))["frame"] != number:
                    overtaken += 1
                # One message that has begun, and what transport, kernel and line hold, which is about the same again.
                assert overtaken <= 4 + 4 * (number == 0), "frames that were sent later went first"
            for flood in floods:
                flood.cancel()
            for peer in (holder, sibling, *flooding):
                peer.transport.abort()

    with slow_line(network, *MOBILE) as line:
        relay = start_relay(launch=Launch(listen=["tcp:{port}"]))
        scenario()


@pytest.mark.slow
def test_a_binary_on_a_very_slow_line_keeps_its_server_id(network: Network, start_relay: StartRelay) -> None:
    """At 64 kbit/s with long frames on their way to it, a binary passes the probe of a second claim."""
    long_frame = f'"{"x" * 100_000}"'

    @asynchronous
    async def challenge() -> None:
        server_id = fresh_id()
        near = f"ws://{LOCALHOST}:{relay.port}"
        async with contextlib.AsyncExitStack() as stack:
            far = binary(f"ws://{NEAR}:{relay.port}", server_id, sock=line.connection(relay.port))
            holder = await stack.enter_async_context(far)
            flooding = await stack.enter_async_context(phone(near, server_id))
            flood = asyncio.create_task(send_until_closed(flooding, long_frame))
            await until_paused(relay)
            for _ in range(2):
                challenger = await stack.enter_async_context(binary(near, server_id))
                assert await closed(challenger) == (4409, "server-id already claimed")
            assert holder.close_code is None
            assert json.loads(await asyncio.wait_for(holder.recv(), 2 * DEADLINE_S))["frame"]
            flood.cancel()
            for peer in (holder, flooding):
                peer.transport.abort()

    with slow_line(network, 0.02, 64_000.0) as line:
        relay = start_relay(launch=Launch(listen=["tcp:{port}"]))
        challenge()
