"""The close notice that a real binary gets when the connection of a phone ends, and when it gets none."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Relay, asynchronous
from tests.end_to_end.peers import Pair, binary, closed, conn_id_of, fresh_id, phone, received, unharmed
from tests.end_to_end.raw import CLOSE, TEXT, Raw, close_frame, frame, raw_peer
from websockets.asyncio.client import ClientConnection


async def _bye(peer: Raw) -> None:
    await peer.send(close_frame(4001, b"bye"))


async def _bye_without_a_code(peer: Raw) -> None:
    await peer.send(frame(CLOSE))


async def _illegal_code(peer: Raw) -> None:
    await peer.send(close_frame(1006))


async def _half_close(peer: Raw) -> None:
    peer.writer.write_eof()


async def _reset(peer: Raw) -> None:
    peer.reset()


async def _no_json(peer: Raw) -> None:
    await peer.send(frame(TEXT, b"nope"))


async def _no_utf8(peer: Raw) -> None:
    await peer.send(frame(TEXT, b"\xff"))


async def _too_large(peer: Raw) -> None:
    await peer.send(frame(TEXT, b"1" * 262_145))


async def _too_many_fragments(peer: Raw) -> None:
    await peer.send(frame(TEXT, b"1", fin=False) + frame(0, b"", fin=False) * 1024)


ENDINGS = [
    (_bye, 4001),
    (_bye_without_a_code, 1001),
    (_illegal_code, 1001),
    (_half_close, 1001),
    (_reset, 1001),
    (_no_json, 1007),
    (_no_utf8, 1007),
    (_too_large, 1009),
    (_too_many_fragments, 1008),
]


@pytest.mark.parametrize(("ending", "code"), ENDINGS)
def test_a_phone_that_leaves(ending: object, code: int, relay: Relay) -> None:
    """The binary gets exactly one notice, to the byte, and other phones go on."""
    assert callable(ending)

    @asynchronous
    async def scenario() -> None:
        server_id = fresh_id()
        async with (
            unharmed(relay),
            binary(relay.uri, server_id) as holder,
            phone(relay.uri, server_id) as sibling,
            raw_peer(relay, server_id) as leaving,
        ):
            await leaving.send(frame(TEXT, b"1"))
            conn_id = json.loads(await received(holder))["conn_id"]
            await ending(leaving)
            assert await received(holder) == f'{{"conn_id":"{conn_id}","close_code":{code}}}'
            await Pair(server_id, holder, sibling).exchange()

    scenario()


@asynchronous
async def test_the_notice_is_behind_what_waits(relay: Relay) -> None:
    """A binary that reads late finds every frame of the phone before its notice, even if the phone was paused."""
    server_id = fresh_id()
    frames = [f'[{number},"{"x" * 60_000}"]' for number in range(100)]
    async with (
        unharmed(relay),
        raw_peer(relay, server_id, "/v1/server", receive_bytes=16384) as holder,
        phone(relay.uri, server_id) as leaving,
    ):

        async def talk() -> None:
            for text in frames:
                await leaving.send(text)
            await leaving.close(4002)

        talking = asyncio.create_task(talk())
        envelopes = [json.loads((await holder.frame())[1]) for _ in range(len(frames) + 1)]
        assert [json.dumps(envelope["frame"], separators=(",", ":")) for envelope in envelopes[:-1]] == frames
        assert envelopes[-1] == {"conn_id": envelopes[0]["conn_id"], "close_code": 4002}
        await talking


@asynchronous
async def test_no_notice_for_a_phone_that_the_binary_closed(relay: Relay) -> None:
    """A binary that closed a phone gets no notice; its next message is another phone's frame."""
    server_id = fresh_id()
    async with (
        unharmed(relay),
        binary(relay.uri, server_id) as holder,
        phone(relay.uri, server_id) as sibling,
        phone(relay.uri, server_id) as leaving,
    ):
        conn_id = await conn_id_of(leaving, holder)
        await holder.send(json.dumps({"conn_id": conn_id, "frame": "bye", "close_code": 4401}))
        assert await received(leaving) == '"bye"'
        assert (await closed(leaving))[0] == 4401
        await Pair(server_id, holder, sibling).exchange()


def test_no_notice_at_the_shutdown(start_relay: StartRelay) -> None:
    """At the shutdown a binary gets no notice for its phones, in whatever order peers answer."""
    relay = start_relay("--upgrade-quota", "off")

    @asynchronous
    async def scenario() -> None:
        server_id = fresh_id()
        async with raw_peer(relay, server_id, "/v1/server") as holder:
            phones = [await phone(relay.uri, server_id) for _ in range(16)]
            for peer in phones:
                await _speak_up(peer, holder)
            relay.signal(signal.SIGTERM)
            for peer in phones:
                assert (await closed(peer))[0] == 1001
            opcode, payload = await holder.frame()
            assert (opcode, payload[:2]) == (CLOSE, (1001).to_bytes(2, "big"))
            await holder.send(close_frame(1001))
            assert await holder.rest() == b""

    scenario()


async def _speak_up(peer: ClientConnection, holder: Raw) -> None:
    """Have a phone send a frame, so that it is known to be connected."""
    await peer.send("1")
    assert (await holder.frame())[0] == TEXT
