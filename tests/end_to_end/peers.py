"""Binaries and phones by the `websockets` library, alone and in pairs.

The library shares no code with the relay, so that both ends cannot be wrong in the same way. Sizes are bytes, times
seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from tests.end_to_end.harness import DEADLINE_S, Relay, eventually
from tests.end_to_end.raw import Fields
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed

_numbers = itertools.count(1)


def fresh_id() -> str:
    """Return a server-id that no other test uses."""
    return f"server-{next(_numbers)}"


def _peer(uri: str, server_id: str, fields: Fields, options: dict[str, Any]) -> connect:
    headers = [("x-pyrycode-server", server_id), *fields, *options.pop("additional_fields", ())]
    if source := options.pop("source", None):
        options["local_addr"] = (source, 0)
    options = {"compression": None, "proxy": None, "open_timeout": DEADLINE_S, "ping_interval": None} | options
    if path := options.pop("unix", None):
        return unix_connect(str(path), uri, additional_headers=headers, **options)
    return connect(uri, additional_headers=headers, **options)


def binary(uri: str, server_id: str, *fields: tuple[str, str], path: str = "/v1/server", **options: Any) -> connect:
    """Connect a binary: ``async with binary(...) as it`` or ``await binary(...)``.

    ``source`` is the local address, ``unix`` the path of a socket, ``additional_fields`` more header fields; other
    options go to the library.
    """
    return _peer(uri + path, server_id, (("x-pyrycode-version", "1.2.3"), *fields), options)


def phone(uri: str, server_id: str, *fields: tuple[str, str], path: str = "/v1/client", **options: Any) -> connect:
    """Connect a phone; see `binary`."""
    return _peer(uri + path, server_id, fields, options)


async def received(peer: ClientConnection) -> str | bytes:
    """Return the next message."""
    # asyncio.wait_for of Python 3.11 can lose a cancellation that comes together with the message.
    async with asyncio.timeout(DEADLINE_S):
        return await peer.recv()


async def forwarded(binary_peer: ClientConnection) -> str:
    """Return the next envelope around a phone's frame; skip close notices of phones that left before."""
    while True:
        envelope = str(await received(binary_peer))
        if "frame" in json.loads(envelope):
            return envelope


async def closed(peer: ClientConnection) -> tuple[int | None, str | None]:
    """Wait until the relay has closed this peer, and return code and reason."""
    async with asyncio.timeout(DEADLINE_S):
        await peer.wait_closed()
    return peer.close_code, peer.close_reason


async def conn_id_of(phone_peer: ClientConnection, binary_peer: ClientConnection) -> str:
    """Have a phone send a frame, and return its conn_id as the binary learns it."""
    await phone_peer.send('"hello"')
    envelope = json.loads(await forwarded(binary_peer))
    assert envelope["frame"] == "hello"
    return str(envelope["conn_id"])


@dataclass(frozen=True)
class Pair:
    """A binary and one of its phones."""

    server_id: str
    binary: ClientConnection
    phone: ClientConnection

    async def exchange(self) -> str:
        """Send one frame each way, check both, and return the phone's conn_id."""
        frame = f'{{"n": {next(_numbers)}}}'
        await self.phone.send(frame)
        envelope = await forwarded(self.binary)
        conn_id = str(json.loads(envelope)["conn_id"])
        assert envelope == f'{{"conn_id":"{conn_id}","frame":{frame}}}'
        await self.binary.send(f'{{"conn_id":"{conn_id}","frame":[{frame}]}}')
        assert await received(self.phone) == f"[{frame}]"
        return conn_id


@contextlib.asynccontextmanager
async def pair(uri: str, server_id: str = "", **options: Any) -> AsyncIterator[Pair]:
    """Connect a binary and a phone of it."""
    server_id = server_id or fresh_id()
    async with binary(uri, server_id, **options) as one, phone(uri, server_id, **options) as other:
        yield Pair(server_id, one, other)


@contextlib.asynccontextmanager
async def unharmed(relay: Relay) -> AsyncIterator[Pair]:
    """Connect a pair that exchanges frames before and after the block, and check that no lease is left."""
    before = relay.connections()
    async with pair(relay.uri) as siblings:
        await siblings.exchange()
        yield siblings
        await siblings.exchange()
    await eventually(lambda: relay.connections() == before, "every lease is given back")


async def send_until_closed(peer: ClientConnection, text: str) -> int:
    """Send as fast as the relay reads until it closes this peer, and return how many bytes were sent."""
    sent = 0
    # If the relay ends its side while data waits here, asyncio drops the transport, which the library then aborts.
    with contextlib.suppress(ConnectionClosed, AttributeError):
        while True:
            await peer.send(text)
            # Sending yields only when the socket is full; without this no frame would be read, not even a close frame.
            await asyncio.sleep(0)
            sent += len(text)
    return sent


async def until_paused(relay: Relay) -> None:
    """Wait until the relay has forwarded frames to binaries, and forwards no more of them."""
    forwarded = 'pyrycode_relay_frames_forwarded_total{direction="phone_to_binary"}'
    start = relay.metrics()[forwarded]
    seen = [start] * 10

    def stands_still() -> bool:
        seen.append(relay.metrics()[forwarded])
        return seen[-1] > start and len(set(seen[-10:])) == 1

    await eventually(stands_still, "phones are paused")
