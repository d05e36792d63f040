"""Invalid request heads over raw sockets: each gets its status, affects no other peer, and leaves nothing behind.

`unharmed` is the second half of each test: another pair exchanges frames before and after, and every lease is released;
the fixture `relay` checks that the log holds no traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import GENEROUS, Relay, asynchronous
from tests.end_to_end.peers import fresh_id, unharmed
from tests.end_to_end.raw import (
    PING,
    PONG,
    UPGRADE,
    Raw,
    ask,
    frame,
    head,
    raw,
    statuses,
    upgrade,
)

INPUTS = Path(__file__).parent.parent / "inputs"

PHONE = upgrade("/v1/client", "unclaimed")
HEALTH = head("/healthz", ("Host", "relay"))
NO_SERVER = 4404


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET  /healthz HTTP/1.1\r\nHost: r\r\n\r\n",
        b"GET /healthz HTTP/1.1 \r\nHost: r\r\n\r\n",
        b"GET /healthz http/1.1\r\nHost: r\r\n\r\n",
        b"GET /heal thz HTTP/1.1\r\nHost: r\r\n\r\n",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: r\r\n\r\n",
        b"GET /healthz#x HTTP/1.1\r\nHost: r\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\nHost: r\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\nX: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: r\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\rX: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\nX: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\nX: a\x7fb\r\n\r\n",
        b"GET /heal\x07thz HTTP/1.1\r\nHost: r\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\nX\x00: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\nX : y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\n: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\nX: y\r\n folded\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n Host: r\r\n\r\n",
        b"GET /healthz HTTP/11\r\nHost: r\r\n\r\n",
        b"GET /healthz HTTP/1.x\r\nHost: r\r\n\r\n",
    ],
)
@asynchronous
async def test_malformed_head(request_bytes: bytes, relay: Relay) -> None:
    """A head that RFC 9112 forbids gets 400 with an empty body, and the connection closes."""
    async with unharmed(relay):
        answer = await ask(relay.address, request_bytes)
        assert (answer.status, answer.body, answer.fields["connection"]) == (400, b"", "close")


@pytest.mark.parametrize("version", ["0.9", "2.0", "9.9"])
@asynchronous
async def test_another_http(version: str, relay: Relay) -> None:
    """Another major version of HTTP gets 505."""
    async with unharmed(relay):
        assert (await ask(relay.address, head("/healthz", ("Host", "r"), version=version))).status == 505


@asynchronous
async def test_http_2_preface(relay: Relay) -> None:
    """The connection preface of HTTP/2 is refused."""
    async with unharmed(relay):
        assert (await ask(relay.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).status in (400, 505)


@asynchronous
async def test_upgrade_by_http_1_0(relay: Relay) -> None:
    """An upgrade by HTTP/1.0, which has none, gets 426."""
    async with unharmed(relay):
        assert (await ask(relay.address, PHONE.replace(b"HTTP/1.1", b"HTTP/1.0"))).status == 426


@pytest.mark.parametrize(
    "name", ["Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "x-pyrycode-server", "User-Agent"]
)
@asynchronous
async def test_repeated_header(name: str, relay: Relay) -> None:
    """A header that two parsers could read differently is refused when it is repeated."""
    async with unharmed(relay):
        value = dict(UPGRADE).get(name, "unclaimed")
        answer = await ask(relay.address, upgrade("/v1/client", "unclaimed", (name.lower(), value)))
        assert answer.status == (426 if name == "Sec-WebSocket-Version" else 400)


@pytest.mark.parametrize(
    "key", ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==x", "\xff" * 24, "A" * 24]
)
@asynchronous
async def test_bad_key(key: str, relay: Relay) -> None:
    """A key that is not 16 bytes in base64 gets 400."""
    async with unharmed(relay):
        fields = [(name, key if name == "Sec-WebSocket-Key" else value) for name, value in UPGRADE]
        answer = await ask(relay.address, head("/v1/client", *fields, ("x-pyrycode-server", "unclaimed")))
        assert answer.status == 400


@asynchronous
async def test_endless_head(relay: Relay) -> None:
    """A head over 16 KiB gets 431, in one line, in many lines, and without any line end."""
    endless = [
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4_000,
        b"A" * 20_000,
        b"GET /" + b"\r" * 20_000,
        b"GET / HTTP/1.1\r\nHost: r\r\nX: " + b"x" * 17_000 + b"\r\n\r\n",
    ]
    async with unharmed(relay):
        for request in endless:
            async with raw(relay.address) as peer:
                await peer.send(request)
                assert (await peer.response()).status == 431
                await peer.gone()
        many = head("/healthz", ("Host", "r"), *[("X", "y")] * 101)
        assert (await ask(relay.address, many)).status == 431


@asynchronous
async def test_flood_after_a_refusal(relay: Relay) -> None:
    """A peer that goes on sending after its answer is not read for ever."""
    async with unharmed(relay), raw(relay.address) as peer:
        await peer.send(head("/nothing", ("Host", "r")))
        assert (await peer.response()).status == 404
        before = relay.rss_bytes()
        for _ in range(100):
            await peer.send(bytes(65536))
        await peer.gone()
        assert relay.rss_bytes() - before < 8 * 1024 * 1024


@asynchronous
async def test_pipelined_requests(relay: Relay) -> None:
    """Only the first request of a connection is answered."""
    async with unharmed(relay):
        answer = await ask(relay.address, HEALTH * 3)
        assert answer.status == 200
        assert answer.body.count(b"uptime_seconds") == 1
        assert b"HTTP/1.1" not in answer.body


async def _read_by_the_relay(relay: Relay) -> None:
    """Wait until the relay has read what was sent before: it answers a request in a later turn of its reactor."""
    for _ in range(2):
        await ask(relay.address, HEALTH)


@asynchronous
async def test_split_at_every_byte(relay: Relay) -> None:
    """A head and the first frame after it may be split anywhere."""
    data = upgrade("/v1/server", fresh_id()) + frame(PING, b"p")
    async with unharmed(relay):
        for first in range(1, len(data), 50):
            cuts = range(first, min(first + 50, len(data)))
            async with contextlib.AsyncExitStack() as stack:
                peers = [await stack.enter_async_context(raw(relay.address)) for _ in cuts]
                unique = [data.replace(b"server-", b"s%03d-" % cut) for cut in cuts]
                for peer, cut, bytes_of_one in zip(peers, cuts, unique, strict=True):
                    await peer.send(bytes_of_one[:cut])
                await _read_by_the_relay(relay)
                for peer, cut, bytes_of_one in zip(peers, cuts, unique, strict=True):
                    await peer.send(bytes_of_one[cut:])
                for peer in peers:
                    assert (await peer.response()).status == 101
                    assert await peer.frame() == (PONG, b"p")


@asynchronous
async def test_byte_by_byte(relay: Relay) -> None:
    """An upgrade may arrive in single bytes."""
    async with unharmed(relay), raw(relay.address) as peer:
        for byte in PHONE:
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await peer.response()).status == 101
        assert await peer.close_code() == NO_SERVER


@pytest.mark.slow
@asynchronous
async def test_slow_heads(start_relay: StartRelay) -> None:
    """A head that is incomplete after 5 s gets 408, however slowly it arrives; a silent connection gets no answer."""
    relay = start_relay(*GENEROUS)
    beginnings = [
        b"G",
        b"GET /healthz HTTP/1.1\r\nHost: r\r\n",
        HEALTH[:-1],
        b"GET /healthz HTTP/1.1\nHost: r\n\n",
    ]

    async def halfway(beginning: bytes) -> None:
        async with raw(relay.address) as peer:
            await peer.send(beginning)
            answer = await peer.response()
            assert (answer.status, await peer.rest()) == (408, b"")

    async def trickling() -> None:
        async with raw(relay.address) as peer:
            writing = asyncio.create_task(_trickle(peer, PHONE))
            assert (await peer.response()).status == 408
            writing.cancel()

    async def silent() -> None:
        async with raw(relay.address) as peer:
            with contextlib.suppress(ConnectionResetError):
                assert await peer.rest() == b""

    async with unharmed(relay):
        await asyncio.gather(*map(halfway, beginnings), trickling(), silent(), silent())


@pytest.mark.parametrize(("name", "status"), [("scan-ssh-banner.bin", 408), ("scan-tls-client-hello-short.bin", 400)])
@asynchronous
async def test_scanners(name: str, status: int, start_relay: StartRelay) -> None:
    """Bytes that cannot begin a head are refused at once, others in time, with one log line for all connections."""
    relay = start_relay()
    data = (INPUTS / name).read_bytes()

    async def scan() -> None:
        async with raw(relay.address) as peer:
            await peer.send(data)
            assert (await peer.response()).status == status

    async with unharmed(relay):
        await asyncio.gather(*(scan() for _ in range(5)))
    line = f"refused 127.0.0.1 {status} "
    await relay.log_will_have(line)
    assert relay.log().count(line) == 1


@asynchronous
async def test_a_probe_never_jails_this_machine(start_relay: StartRelay) -> None:
    """haproxy's default check gets 404 every time, and its address is never jailed."""
    relay = start_relay("--http-quota", "off", "--jail-after", "2/minute")
    data = (INPUTS / "probe-options-http10.txt").read_bytes()
    async with unharmed(relay):
        assert await statuses(relay.address, data, 20) == [404] * 20


@asynchronous
async def test_a_field_in_utf_8(relay: Relay) -> None:
    """A header field of a CDN in any encoding does not prevent an upgrade."""
    assert await statuses(relay.address, (INPUTS / "upgrade-utf8-header.txt").read_bytes(), 1) == [101]


async def _trickle(peer: Raw, data: bytes) -> None:
    for byte in data:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.5)


@asynchronous
async def test_leaving_at_every_byte_of_the_handshake(relay: Relay) -> None:
    """A peer that vanishes after any byte of its head, by FIN or RST, leaves nothing behind."""
    data = upgrade("/v1/server", fresh_id())
    async with unharmed(relay):
        for cut in range(len(data) + 1):
            async with raw(relay.address) as peer:
                await peer.send(data[:cut])
                if cut % 2:
                    peer.reset()
