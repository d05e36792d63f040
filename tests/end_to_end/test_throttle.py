"""How fast a connection may send: over a quota it is not read from for a while, and no data is lost.

A test measures how long a pause lasts at least, never at most. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import time
from pathlib import Path

import pytest
from tests.end_to_end.admin import told, write_settings
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, GENEROUS, asynchronous
from tests.end_to_end.peers import Pair, binary, fresh_id, pair, phone, received
from tests.end_to_end.raw import PING, PONG, TEXT, frame, raw_peer, upgrade
from tests.support.frames import close_of, decode
from websockets.asyncio.client import ClientConnection

SLACK_S = 0.1
"""Allowed difference: the relay measures from when it read, not from when the peer wrote."""


async def _frames(peer: ClientConnection, count: int) -> list[object]:
    return [json.loads(await received(peer))["frame"] for _ in range(count)]


@asynchronous
async def test_frame_quota_pauses_a_phone(start_relay: StartRelay) -> None:
    """A phone over its frame quota waits until its tokens are back; its siblings do not wait, and all frames arrive."""
    relay = start_relay(*GENEROUS, "--frame-quota", "10/second burst 30")
    server_id = fresh_id()
    async with (
        binary(relay.uri, server_id) as one,
        phone(relay.uri, server_id) as sibling,
        raw_peer(relay, server_id) as fast,
    ):
        began = time.monotonic()
        # 50 frames at once leave a debt of 20, which are 2 s.
        await fast.send(b"".join(frame(TEXT, b"%d" % number) for number in range(50)))
        assert await _frames(one, 50) == list(range(50))
        await fast.send(frame(TEXT, b'"late"'))
        for _ in range(5):
            await Pair(server_id, one, sibling).exchange()
        assert await _frames(one, 1) == ["late"]
        assert time.monotonic() - began >= 2 - SLACK_S


@asynchronous
async def test_byte_quota_pauses_a_phone(start_relay: StartRelay) -> None:
    """A phone over its byte quota is slowed down to it, and every byte arrives in order."""
    relay = start_relay(*GENEROUS, "--byte-quota", "1 MiB/s burst 256 KiB")
    texts = [f'"{number:04d}{"x" * 65_000}"' for number in range(32)]
    async with pair(relay.uri) as peers:
        began = time.monotonic()
        sending = asyncio.create_task(_send_all(peers.phone, texts))
        for text in texts:
            assert str(await received(peers.binary)).endswith(f'"frame":{text}}}')
        await sending
        # 2 MiB less the burst; the last debt, of a chunk below 64 KiB, is not waited for.
        assert time.monotonic() - began >= 1.6
        await peers.exchange()


async def _send_all(peer: ClientConnection, texts: list[str]) -> None:
    for text in texts:
        await peer.send(text)


@pytest.mark.parametrize("path", ["/v1/server", "/v1/client"])
@asynchronous
async def test_ping_quota_pauses_both_kinds(path: str, start_relay: StartRelay) -> None:
    """Every ping is answered, but a peer that sends too many of them waits."""
    relay = start_relay(*GENEROUS, "--ping-quota", "2/second burst 2")
    server_id = fresh_id()
    # A phone needs a binary, and a binary must be the only one.
    async with binary(relay.uri, server_id), raw_peer(relay, server_id if "client" in path else fresh_id(), path) as it:
        began = time.monotonic()
        # A debt of 4 pings is 2 s.
        for number in range(6):
            await it.send(frame(PING, b"%d" % number))
            assert await it.frame() == (PONG, b"%d" % number)
        await it.send(frame(PING, b"late"))
        assert await it.frame() == (PONG, b"late")
        assert time.monotonic() - began >= 2 - SLACK_S


@pytest.mark.parametrize("quota", ["--binary-frame-quota", "--binary-byte-quota"])
@asynchronous
async def test_binary_quotas(quota: str, start_relay: StartRelay) -> None:
    """A binary has its own quotas where they are given, and the phones' quotas do not count for it."""
    value = "10/second burst 30" if "frame" in quota else "550/second burst 1650"
    relay = start_relay(*GENEROUS, "--frame-quota", "1/minute burst 2", quota, value)
    server_id = fresh_id()
    async with raw_peer(relay, server_id, "/v1/server") as one, phone(relay.uri, server_id) as other:
        await other.send('"hello"')
        conn_id = json.loads((await one.frame())[1])["conn_id"]
        frames = [frame(TEXT, json.dumps({"conn_id": conn_id, "frame": number}).encode()) for number in range(60)]
        assert 55 <= len(frames[0]) <= 60
        began = time.monotonic()
        await one.send(b"".join(frames))
        assert [await received(other) for _ in range(60)] == [str(number) for number in range(60)]
        await one.send(frames[0])
        assert await received(other) == "0"
        assert time.monotonic() - began >= 3 - SLACK_S


@asynchronous
async def test_quotas_of_frames_off(start_relay: StartRelay) -> None:
    """With the quotas off there is no wait: frames arrive that would take an hour under the defaults."""
    relay = start_relay(*GENEROUS, "--frame-quota", "off", "--byte-quota", "off", "--ping-quota", "off")
    server_id = fresh_id()
    async with binary(relay.uri, server_id) as one, raw_peer(relay, server_id) as other:
        frames = [frame(TEXT, b"%d" % number) + frame(PING) for number in range(36_000)]
        sending = asyncio.create_task(other.send(b"".join(frames)))
        assert await _frames(one, 36_000) == list(range(36_000))
        await sending


@asynchronous
async def test_a_paused_phone_is_let_go_by_a_reload(start_relay: StartRelay, tmp_path: Path) -> None:
    """A new quota applies to open connections, and a phone that waits for the old one is read from at once."""
    settings = write_settings(tmp_path / "relay.toml", {"frame-quota": "1/hour burst 1"})
    relay = start_relay("--config", str(settings))
    async with pair(relay.uri) as peers:
        for text in ("1", "2"):
            await peers.phone.send(text)
        assert await _frames(peers.binary, 2) == [1, 2]
        await peers.phone.send("3")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peers.binary.recv(), 0.5)
        write_settings(settings, {"frame-quota": "off"})
        assert told(relay, "reload") == ["frame-quota\tchanged"]
        assert await _frames(peers.binary, 1) == [3]
        await peers.exchange()


@asynchronous
async def test_two_large_uploads_in_a_row(start_relay: StartRelay) -> None:
    """The defaults pass two files of 16 MiB in a row, each 373 frames and 31 MiB on the wire."""
    relay = start_relay()
    texts = [f'"{number:03d}{"x" * (31 * 1024 * 1024 // 373)}"' for number in range(373)]
    async with pair(relay.uri) as peers:
        for _ in range(2):
            sending = asyncio.create_task(_send_all(peers.phone, texts))
            for text in texts:
                assert str(await received(peers.binary)).endswith(f'"frame":{text}}}')
            await sending
        await peers.exchange()


def _flood(sock: socket.socket, data: bytes) -> tuple[int, str]:
    """Send until the relay closes the connection, and return code and reason of its close frame.

    The relay reads on for at most a second then, and resets the connection. However slow this machine is, what was sent
    before the reset can be read.
    """
    taken, is_heard = b"", True
    while is_heard or select.select([sock], [], [], DEADLINE_S)[0]:
        if select.select([sock], [], [], 0)[0]:
            with contextlib.suppress(ConnectionError):
                if more := sock.recv(4096):
                    taken += more
                    continue
            break
        try:
            sock.sendall(data)
        except ConnectionError:
            is_heard = False
    return close_of(decode(taken)[-1])


@asynchronous
async def test_continuous_excess_is_closed(start_relay: StartRelay) -> None:
    """A phone that keeps sending too much is closed with 1008 after a while; its sibling is not affected."""
    relay = start_relay(*GENEROUS, "--frame-quota", "20/second burst 20", "--excess-timeout", "5")
    server_id = fresh_id()
    async with binary(relay.uri, server_id) as one, phone(relay.uri, server_id) as sibling:
        reading = asyncio.create_task(_count_floods(one))
        with socket.create_connection(relay.address, DEADLINE_S) as flooding:
            flooding.sendall(upgrade("/v1/client", server_id))
            assert b" 101 " in flooding.recv(4096)
            began = time.monotonic()
            assert await asyncio.to_thread(_flood, flooding, frame(TEXT, b'"flood"')) == (1008, "quota exceeded")
        assert time.monotonic() - began >= 5 - SLACK_S
        await sibling.send('"end"')
        assert await reading > 20


async def _count_floods(one: ClientConnection) -> int:
    """Read a binary's frames up to one with this mark, and return how many came before it."""
    count = 0
    # Most of the time there is no frame, so the deadline is that of the whole test.
    while (envelope := json.loads(await one.recv())).get("frame") != "end":
        count += "frame" in envelope
    return count
