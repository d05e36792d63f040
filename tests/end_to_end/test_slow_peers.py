"""Peers that do not read: they affect no other peer, and cost a bounded amount of memory."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from tests.end_to_end.harness import DEADLINE_S, Relay, asynchronous, eventually
from tests.end_to_end.peers import (
    Pair,
    binary,
    closed,
    fresh_id,
    phone,
    received,
    send_until_closed,
    unharmed,
    until_paused,
)
from tests.end_to_end.raw import CLOSE, TEXT, frame, raw_peer

MIB = 1024 * 1024
SMALL_BUFFER = 16384
"""What the kernel keeps for a peer that does not read; the smallest value that Linux does not round up."""
GROWTH = 12 * MIB
"""More than 4 MiB of backlog and the buffers around it, less than what is sent and would be kept without a bound."""


def _assert_bounded(relay: Relay, before: int) -> None:
    assert relay.rss_bytes() - before < GROWTH


@asynchronous
async def test_phone_that_never_reads(relay: Relay) -> None:
    """A phone that does not read is closed with 1011 once its backlog is full; its sibling gets every frame."""
    server_id = fresh_id()
    big = "x" * 200_000
    async with (
        unharmed(relay),
        binary(relay.uri, server_id) as holder,
        phone(relay.uri, server_id) as sibling,
        raw_peer(relay, server_id, receive_bytes=SMALL_BUFFER) as stuck,
    ):
        conn_id = await Pair(server_id, holder, sibling).exchange()
        await stuck.send(frame(TEXT, b"0"))
        stuck_id = json.loads(await received(holder))["conn_id"]
        before = relay.rss_bytes()
        dropped = 'pyryrelay_envelopes_dropped_total{kind="unknown_conn_id"}'
        drops = relay.metrics()[dropped]
        for number in range(500):
            await holder.send(json.dumps({"conn_id": stuck_id, "frame": big}))
            await holder.send(json.dumps({"conn_id": conn_id, "frame": number}))
            assert await received(sibling) == str(number)
            if relay.metrics()[dropped] > drops:
                break
        else:
            pytest.fail("100 MB for a phone that does not read were taken")
        _assert_bounded(relay, before)
        opcode, payload = await stuck.message()
        while opcode != CLOSE:
            opcode, payload = await stuck.message()
        assert payload == (1011).to_bytes(2, "big") + b"phone backlog full"


@asynchronous
async def test_phone_that_reads_late(relay: Relay) -> None:
    """A phone that is busy for a moment gets hundreds of small frames later, as in a burst at connect."""
    server_id = fresh_id()
    async with (
        unharmed(relay),
        binary(relay.uri, server_id) as holder,
        raw_peer(relay, server_id, receive_bytes=SMALL_BUFFER) as late,
    ):
        await late.send(frame(TEXT, b"0"))
        conn_id = json.loads(await received(holder))["conn_id"]
        forwarded = 'pyrycode_relay_frames_forwarded_total{direction="binary_to_phone"}'
        before = relay.metrics()[forwarded]
        frames = [json.dumps(f"{number:03}{'x' * 1019}").encode() for number in range(300)]
        for sent in frames:
            await holder.send(json.dumps({"conn_id": conn_id, "frame": json.loads(sent)}))
        await eventually(lambda: relay.metrics()[forwarded] >= before + len(frames), "the relay has all frames")
        assert [await late.frame() for _ in frames] == [(TEXT, sent) for sent in frames]


@asynchronous
async def test_phone_that_never_reads_and_pings(relay: Relay) -> None:
    """Pings of a phone that does not read the pongs use a bounded amount of memory."""
    server_id = fresh_id()
    ping = frame(0x9, b"x" * 125) * 1000
    async with (
        unharmed(relay),
        binary(relay.uri, server_id),
        raw_peer(relay, server_id, receive_bytes=SMALL_BUFFER) as stuck,
    ):
        before = relay.rss_bytes()
        for _ in range(200):
            await stuck.send(ping)
        _assert_bounded(relay, before)


@pytest.mark.slow
@asynchronous
async def test_binary_that_never_reads(relay: Relay) -> None:
    """A binary that does not read has its phones paused, and is closed with 1011 after about 10 s.

    The phones stay connected through that, until their next frame finds no binary.
    """
    server_id = fresh_id()
    big = f'"{"x" * 100_000}"'
    async with (
        unharmed(relay) as siblings,
        raw_peer(relay, server_id, "/v1/server", receive_bytes=SMALL_BUFFER) as stuck,
        contextlib.AsyncExitStack() as stack,
    ):
        phones = [await stack.enter_async_context(phone(relay.uri, server_id)) for _ in range(3)]
        silent = await stack.enter_async_context(phone(relay.uri, server_id))
        before = relay.rss_bytes()
        senders = [asyncio.create_task(send_until_closed(peer, big)) for peer in phones]
        while not all(sender.done() for sender in senders):
            _assert_bounded(relay, before)
            await siblings.exchange()
            await asyncio.sleep(0.1)
        assert min(await asyncio.gather(*senders)) > 0
        assert [(await closed(peer))[0] for peer in phones] == [1000] * 3
        _assert_bounded(relay, before)
        assert await stuck.close_code() == 1011
        await asyncio.wait_for(await silent.ping(), DEADLINE_S)


@asynchronous
async def test_binary_that_reads_late(relay: Relay) -> None:
    """A binary that pauses for a moment gets every frame in order once it reads again."""
    server_id = fresh_id()
    async with (
        unharmed(relay),
        raw_peer(relay, server_id, "/v1/server", receive_bytes=SMALL_BUFFER) as holder,
        phone(relay.uri, server_id) as other,
    ):
        filler = "x" * 60_000

        async def talk() -> None:
            for number in range(200):
                await other.send(f'[{number},"{filler}"]')

        talking = asyncio.create_task(talk())
        await until_paused(relay)
        assert not talking.done()
        numbers = [json.loads((await holder.message())[1])["frame"][0] for _ in range(200)]
        assert numbers == list(range(200))
        await talking


@asynchronous
async def test_phone_that_dies_while_it_is_paused(relay: Relay) -> None:
    """A phone that is reset while its binary does not read gives its place back within seconds."""
    server_id = fresh_id()
    phones, stall_s = 'pyryrelay_connections{kind="client"}', 10.0
    async with (
        unharmed(relay),
        raw_peer(relay, server_id, "/v1/server", receive_bytes=SMALL_BUFFER),
        raw_peer(relay, server_id) as dying,
    ):
        before = relay.connections()[phones]
        talking = asyncio.create_task(dying.send(frame(TEXT, f'"{"x" * 60_000}"'.encode()) * 200))
        await until_paused(relay)
        dying.reset()
        reset_s = asyncio.get_running_loop().time()
        await talking
        await eventually(lambda: relay.connections()[phones] == before - 1, "the phone is gone")
        # Once the binary is closed, its phones are read from in any case.
        assert asyncio.get_running_loop().time() - reset_s < stall_s - 1.0
