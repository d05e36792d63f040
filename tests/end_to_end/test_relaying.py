"""Binaries and phones by the specification "pyry-v1", with its addresses, headers and close codes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Relay, asynchronous, eventually
from tests.end_to_end.peers import Pair, binary, closed, conn_id_of, fresh_id, pair, phone, received, unharmed
from tests.end_to_end.raw import CLOSE, TEXT, close_frame, frame, raw_peer
from websockets.asyncio.client import ClientConnection

RECLAIMED = (4404, "binary reclaimed server-id")

BYTES_TO_KEEP = [
    '{"a": 1, "a":2,\t"\\u0041": "\\ud83d\\ude00 \\ud800"}',
    "[1.0, 1e400, -0, 123456789012345678901234567890]",
    '"\u00e4\u4e2d\U0001f600\\/"',
    '{ "nested" : [[[{}]]] , "conn_id":"client-forged-00000000"}',
    "null",
    "0",
    '{"z":' + "[" * 100 + "]" * 100 + "}",
]
"""Frames that would be changed by decoding and encoding."""


@contextlib.asynccontextmanager
async def _household(relay: Relay, phones: int) -> AsyncIterator[tuple[ClientConnection, list[ClientConnection]]]:
    server_id = fresh_id()
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(binary(relay.uri, server_id))
        yield one, [await stack.enter_async_context(phone(relay.uri, server_id)) for _ in range(phones)]


async def _nothing_more(*peers: ClientConnection) -> None:
    """Check that no message waits: the pong comes behind everything that was sent before."""
    for peer in peers:
        await asyncio.wait_for(await peer.ping(), DEADLINE_S)
        assert peer.protocol.state.name == "OPEN"
        with contextlib.suppress(TimeoutError):
            pytest.fail(f"unexpected message {await asyncio.wait_for(peer.recv(), 0.01)!r}")


@asynchronous
async def test_two_households(relay: Relay) -> None:
    """With two server-ids of three phones each, every frame reaches only the peer that it is for."""
    async with _household(relay, 3) as (one, of_one), _household(relay, 3) as (two, of_two):
        ids = {}
        for holder, phones in ((one, of_one), (two, of_two)):
            for number, peer in enumerate(phones):
                frame_text = f'{{"from": {number}}}'
                # Text and binary messages are both accepted.
                await peer.send(frame_text.encode() if number % 2 else frame_text)
                envelope = await received(holder)
                conn_id = json.loads(envelope)["conn_id"]
                assert envelope == f'{{"conn_id":"{conn_id}","frame":{frame_text}}}'
                ids[peer] = holder, conn_id
        assert len({conn_id for _, conn_id in ids.values()}) == 6
        for peer, (holder, conn_id) in ids.items():
            await holder.send(json.dumps({"conn_id": conn_id, "frame": conn_id}))
            assert await received(peer) == f'"{conn_id}"'
        await _nothing_more(one, two, *of_one, *of_two)


@asynchronous
async def test_bytes_are_kept(relay: Relay) -> None:
    """Frames are forwarded unchanged in both directions."""
    async with pair(relay.uri) as peers:
        conn_id = await peers.exchange()
        for text in BYTES_TO_KEEP:
            await peers.phone.send(text)
            assert await received(peers.binary) == f'{{"conn_id":"{conn_id}","frame":{text}}}'
            if text != "null":
                await peers.binary.send(f'{{"conn_id":"{conn_id}","frame":{text}}}')
                assert await received(peers.phone) == text


@asynchronous
async def test_largest_message(relay: Relay) -> None:
    """A frame of exactly 262,144 bytes passes from phone to binary, though its envelope is larger."""
    async with pair(relay.uri) as peers:
        conn_id = await peers.exchange()
        largest = f'"{"x" * (262_144 - 2)}"'
        await peers.phone.send(largest)
        assert await received(peers.binary) == f'{{"conn_id":"{conn_id}","frame":{largest}}}'


@asynchronous
async def test_fragments_are_joined(relay: Relay) -> None:
    """A fragmented message, with a ping in between, arrives as one."""
    async with pair(relay.uri) as peers:
        conn_id = await peers.exchange()

        async def pieces() -> AsyncIterator[str]:
            for piece in ('["a', "b", "", 'c", ', "1", "]"):
                yield piece
                await peers.phone.ping()

        await peers.phone.send(pieces())
        assert await received(peers.binary) == f'{{"conn_id":"{conn_id}","frame":["abc", 1]}}'


@asynchronous
async def test_many_frames_in_order(relay: Relay) -> None:
    """Hundreds of frames at once keep their order in both directions."""
    async with pair(relay.uri, max_queue=None) as peers:
        conn_id = await peers.exchange()
        for number in range(500):
            await peers.phone.send(str(number))
        got = [json.loads(await received(peers.binary))["frame"] for _ in range(500)]
        assert got == list(range(500))
        for number in range(500):
            await peers.binary.send(f'{{"conn_id":"{conn_id}","frame":{number}}}')
        assert [await received(peers.phone) for _ in range(500)] == [str(number) for number in range(500)]


@asynchronous
async def test_aliases(relay: Relay) -> None:
    """/v2/server and /v2/client are the same endpoints, and versions can be mixed."""
    server_id = fresh_id()
    async with (
        binary(relay.uri, server_id, path="/v2/server") as one,
        phone(relay.uri, server_id, path="/v2/client") as newer,
        phone(relay.uri, server_id) as older,
    ):
        for peer in (newer, older):
            await Pair(server_id, one, peer).exchange()


@asynchronous
async def test_token_and_device_name(relay: Relay) -> None:
    """A token is accepted and never logged; a device name may be logged."""
    server_id = fresh_id()
    fields = (("x-pyrycode-token", "s3cret-t0ken"), ("x-pyrycode-device-name", "kitchen phone"))
    async with binary(relay.uri, server_id) as one, phone(relay.uri, server_id, *fields) as peer:
        await Pair(server_id, one, peer).exchange()
    assert "kitchen phone" in relay.log()
    assert "s3cret" not in relay.log()


@pytest.mark.parametrize("origin", ["null", "https://example.org", "no origin at all", "\xe9://[", ","])
@asynchronous
async def test_origin_is_ignored(origin: str, relay: Relay) -> None:
    """An Origin header makes no difference."""
    async with raw_peer(relay, fresh_id(), "/v1/server", ("Origin", origin)) as peer:
        await peer.send(frame(TEXT, b"{}"))
        async with unharmed(relay):
            pass


@asynchronous
async def test_close_code_of_the_binary(relay: Relay) -> None:
    """An envelope with a close code delivers its frame, if any, and then closes the phone with that code."""
    async with _household(relay, 3) as (one, phones):
        ids = [await conn_id_of(peer, one) for peer in phones]
        await one.send(json.dumps({"conn_id": ids[0], "frame": "bye", "close_code": 4401}))
        await one.send(json.dumps({"conn_id": ids[1], "close_code": 1000}))
        await one.send(json.dumps({"conn_id": ids[2], "frame": None, "close_code": 3000, "unknown": [1]}))
        assert await received(phones[0]) == '"bye"'
        assert [(await closed(peer))[0] for peer in phones] == [4401, 1000, 3000]
        await _nothing_more(one)


@asynchronous
async def test_binary_addresses_its_own_phones_only(relay: Relay) -> None:
    """An envelope for another server-id's phone is not delivered, and its binary stays connected."""
    async with pair(relay.uri) as one, pair(relay.uri) as other:
        conn_id = await other.exchange()
        await one.binary.send(json.dumps({"conn_id": conn_id, "frame": "forged", "close_code": 4401}))
        await one.exchange()
        await other.exchange()


@asynchronous
async def test_push_wake_is_harmless(relay: Relay) -> None:
    """A push wake is counted, its token is not logged, and the binary stays connected."""
    async with pair(relay.uri) as peers:
        await peers.binary.send('{"push_wake":{"platform":"fcm","token":"w4ke-t0ken"}}')
        await peers.exchange()
    assert "w4ke" not in relay.log()
    assert sum(value for name, value in relay.metrics().items() if "push_wakes_total" in name) >= 1


# Claims


@asynchronous
async def test_restart_within_the_grace(relay: Relay) -> None:
    """A binary that returns within the grace has its server-id at once; its phones are closed with 4404."""
    server_id = fresh_id()
    first = await binary(relay.uri, server_id)
    phones = [await phone(relay.uri, server_id) for _ in range(2)]
    await first.close()
    late = await phone(relay.uri, server_id)
    await asyncio.wait_for(await late.ping(), DEADLINE_S)
    async with binary(relay.uri, server_id) as second:
        assert [await closed(peer) for peer in (*phones, late)] == [RECLAIMED] * 3
        async with phone(relay.uri, server_id) as again:
            await Pair(server_id, second, again).exchange()


@asynchronous
async def test_binary_that_crashed(relay: Relay) -> None:
    """A binary that vanished without a close frame can reclaim its server-id as well."""
    server_id = fresh_id()
    async with raw_peer(relay, server_id, "/v1/server") as first:
        waiting = await phone(relay.uri, server_id)
        first.reset()
        async with binary(relay.uri, server_id) as second:
            assert await closed(waiting) == RECLAIMED
            await eventually(lambda: second.protocol.state.name == "OPEN", "the second binary is connected")


@asynchronous
async def test_grace_expires(start_relay: StartRelay) -> None:
    """When the grace expires, phones are closed with 1000, the server-id is free, and the expiry is counted."""
    relay = start_relay("--grace", "1")
    async with pair(relay.uri, "x") as peers:
        await peers.binary.close()
        assert await closed(peers.phone) == (1000, "")
    assert relay.metrics()["pyrycode_relay_grace_expiries_total"] == 1
    assert await closed(await phone(relay.uri, "x")) == (4404, "no server with that id")


@asynchronous
async def test_frame_to_an_absent_binary(relay: Relay) -> None:
    """During the grace a phone that sends a frame is closed with 1000, and a silent one stays."""
    async with pair(relay.uri) as peers, phone(relay.uri, peers.server_id) as silent:
        await peers.binary.close()
        await peers.phone.send('"anybody there?"')
        assert await closed(peers.phone) == (1000, "")
        await _nothing_more(silent)


@asynchronous
async def test_a_server_id_without_a_binary(relay: Relay) -> None:
    """A phone without a binary is upgraded and closed with 4404."""
    async with phone(relay.uri, fresh_id()) as peer:
        assert await closed(peer) == (4404, "no server with that id")


@asynchronous
async def test_too_many_phones(relay: Relay) -> None:
    """The seventeenth phone is closed with 4429 until one leaves; 4404 precedes 4429."""
    async with _household(relay, 0) as (one, _):
        server_id = one.request.headers["x-pyrycode-server"] if one.request else ""
        async with contextlib.AsyncExitStack() as stack:
            phones = [await stack.enter_async_context(phone(relay.uri, server_id)) for _ in range(16)]
            assert await closed(await phone(relay.uri, server_id)) == (4429, "too many phones for server-id")
            await phones[0].close()
            async with phone(relay.uri, server_id) as last:
                await Pair(server_id, one, last).exchange()
    assert await closed(await phone(relay.uri, fresh_id())) == (4404, "no server with that id")


@asynchronous
async def test_phones_of_one_address(relay: Relay) -> None:
    """Sixteen phones of one address fill a server-id, and a phone of another address still gets a place."""
    server_id = fresh_id()
    async with binary(relay.uri, server_id) as one, contextlib.AsyncExitStack() as stack:
        of_one_address = [
            await stack.enter_async_context(phone(relay.uri, server_id, source="127.0.0.2")) for _ in range(16)
        ]
        late = await phone(relay.uri, server_id, source="127.0.0.2")
        assert await closed(late) == (4429, "too many phones for server-id")
        async with phone(relay.uri, server_id, source="127.0.0.3") as other:
            await Pair(server_id, one, other).exchange()
        assert await closed(of_one_address[-1]) == (4429, "too many phones for server-id")
        await Pair(server_id, one, of_one_address[0]).exchange()


@asynchronous
async def test_second_claim(relay: Relay) -> None:
    """A binary that answers the relay's ping keeps its server-id and phones, and the second claim gets 4409."""
    async with pair(relay.uri) as peers:
        challenger = await binary(relay.uri, peers.server_id)
        assert await closed(challenger) == (4409, "server-id already claimed")
        await peers.exchange()


@pytest.mark.slow
@asynchronous
async def test_takeover(relay: Relay) -> None:
    """A binary that answers no ping for 10 s is closed with 1011 and its phones with 4404; the second claim succeeds.

    The end of the old connection does not affect the new one.
    """
    server_id = fresh_id()
    async with raw_peer(relay, server_id, "/v1/server") as incumbent:
        waiting = await phone(relay.uri, server_id)
        async with binary(relay.uri, server_id) as challenger:
            second = await binary(relay.uri, server_id)
            assert await closed(waiting) == RECLAIMED
            assert await closed(second) == (4409, "server-id already claimed")
            opcode, payload = await incumbent.frame()
            while opcode != CLOSE:
                opcode, payload = await incumbent.frame()
            assert payload == (1011).to_bytes(2, "big") + b"heartbeat timeout"
            await incumbent.send(close_frame(1011))
            await incumbent.gone()
            async with phone(relay.uri, server_id) as peer:
                await Pair(server_id, challenger, peer).exchange()
