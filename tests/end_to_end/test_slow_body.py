"""Requests whose bodies never end do not keep the relay waiting."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tests.end_to_end.harness import DEADLINE_S, Relay, asynchronous
from tests.end_to_end.raw import head, raw

BODIES = {
    "announced": (("Content-Length", "1000000"), b"x"),
    "chunked": (("Transfer-Encoding", "chunked"), b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("framing", BODIES)
@pytest.mark.parametrize(("path", "status"), [("/healthz", 405), ("/v1/client", 405), ("/nowhere", 404)])
@asynchronous
async def test_slow_body(path: str, status: int, framing: str, relay: Relay) -> None:
    """The answer comes with the end of the head, and the connection ends while its body still arrives."""
    field, piece = BODIES[framing]
    async with raw(relay.address) as peer:
        await peer.send(head(path, ("Host", "relay"), field, method="POST"))
        assert (await peer.response()).status == status

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    peer.writer.write(piece)
                    await peer.writer.drain()
                    await asyncio.sleep(0.1)

        # The bodies would take days to arrive.
        await asyncio.wait_for(trickle(), DEADLINE_S)
    await relay.metric_will_be('pyryrelay_connections{kind="handshake"}', 0)
