"""Healthy peers on slow lines, between machines. See `slow_line`. Sizes are bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import LOCALHOST, Launch, asynchronous
from tests.end_to_end.network import Network, network_or_skip
from tests.end_to_end.peers import Pair, binary, fresh_id, phone, received
from tests.end_to_end.slow_line import NEAR, slow_line

MOBILE = 0.05, 1_000_000.0
"""50 ms each way, 1 Mbit/s."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """The server is where the tests of this module run."""
    with network_or_skip() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(500, 300), (25, 60_000), (24, 84_000)])
def test_bursts_to_a_phone_on_a_mobile_line(count: int, size: int, network: Network, start_relay: StartRelay) -> None:
    """What a daemon sends at once, at connect or of a long conversation, arrives whole and in order."""
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
