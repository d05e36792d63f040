"""Compressed messages between a real relay with the echo room and clients of two other implementations."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Launch, Relay, asynchronous, run
from tests.end_to_end.peers import closed, received
from websockets.asyncio.client import ClientConnection, connect

PROGRAM = (sys.executable, "-m", "tests.end_to_end.with_room")
TEXTS = ["one " * 200, "short", "", "two " * 200, "one " * 200, "ö" * 500]


@pytest.fixture(params=["no-context", "context"])
def relay(start_relay: StartRelay, request: pytest.FixtureRequest) -> Relay:
    """A relay whose room compresses messages."""
    return start_relay("--echo-deflate", request.param, launch=Launch(program=PROGRAM))


def visit(relay: Relay, **options: Any) -> connect:
    """Connect a visitor of the room."""
    headers = [("X-Visitor", "v")]
    return connect(f"{relay.uri}/room", additional_headers=headers, proxy=None, open_timeout=DEADLINE_S, **options)


def extensions(visitor: ClientConnection) -> str:
    """Return the extensions that were agreed upon."""
    assert visitor.response is not None
    return visitor.response.headers.get("Sec-WebSocket-Extensions", "")


@asynchronous
async def test_websockets(relay: Relay) -> None:
    """The client of websockets gets back what it sends, whole and in fragments."""
    async with visit(relay) as visitor:
        assert "permessage-deflate" in extensions(visitor)
        for text in TEXTS:
            await visitor.send(text)
            assert await received(visitor) == text
        await visitor.send(["in ", "several ", "pieces " * 50])
        assert await received(visitor) == "in several " + "pieces " * 50


@asynchronous
async def test_a_bomb(relay: Relay) -> None:
    """A message of a thousand times its size on the wire ends its connection alone."""
    async with visit(relay) as visitor, visit(relay) as bomber:
        await bomber.send(bytes(1_000_000))
        assert (await closed(bomber))[0] == 1009
        await visitor.send("still here")
        assert await received(visitor) == "still here"


@asynchronous
async def test_without_compression(relay: Relay) -> None:
    """A client that does not ask for it gets messages as they are."""
    async with visit(relay, compression=None) as visitor:
        assert extensions(visitor) == ""
        for text in TEXTS:
            await visitor.send(text)
            assert await received(visitor) == text


@pytest.mark.parametrize("no_context", ["true", "false"])
def test_autobahn(relay: Relay, no_context: str) -> None:
    """The client of Autobahn gets back what it sends."""
    done = run(
        sys.executable, "-m", "tests.end_to_end.autobahn_visitor", f"{relay.uri}/room", no_context, json.dumps(TEXTS)
    )
    assert json.loads(done.stdout) == ["permessage-deflate", TEXTS], done.stderr
