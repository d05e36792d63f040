"""Invalid frames over raw sockets: each gets its close code, affects no other peer, and leaves nothing behind.

`unharmed` is the second half of each test: another pair exchanges frames before and after, and every lease is released;
the fixture `relay` checks that the log holds no traceback.
"""

from __future__ import annotations

import json

import pytest
from tests.end_to_end.harness import Relay, asynchronous
from tests.end_to_end.peers import forwarded, fresh_id, received, unharmed
from tests.end_to_end.raw import (
    BINARY,
    CLOSE,
    MASK,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    raw,
    raw_peer,
    upgrade,
)

LIMIT = 262_144
CONTINUATION = 0x0


async def _refused(relay: Relay, data: bytes, path: str = "/v1/client") -> int:
    """Return the close code for these bytes, sent by a phone of a binary, or by a binary."""
    async with unharmed(relay) as siblings:
        server_id = siblings.server_id if path.endswith("client") else fresh_id()
        async with raw_peer(relay, server_id, path) as peer:
            await peer.send(data)
            return await peer.close_code()


LEGS = pytest.mark.parametrize("path", ["/v1/client", "/v1/server"])

WRONG_FRAMES = {
    "unmasked": (1002, frame(TEXT, b"{}", mask=False)),
    "unmasked ping": (1002, frame(PING, b"", mask=False)),
    "rsv1": (1002, frame(TEXT, b"{}", rsv=4)),
    "rsv2": (1002, frame(TEXT, b"{}", rsv=2)),
    "rsv3 on a ping": (1002, frame(PING, b"", rsv=1)),
    "reserved data opcode 3": (1002, frame(0x3, b"{}")),
    "reserved data opcode 7": (1002, frame(0x7, b"{}")),
    "reserved control opcode B": (1002, frame(0xB)),
    "reserved control opcode F": (1002, frame(0xF)),
    "fragmented ping": (1002, frame(PING, b"", fin=False)),
    "long ping": (1002, frame(PING, bytes(126))),
    "continuation of nothing": (1002, frame(CONTINUATION, b"{}")),
    "new message inside another": (1002, frame(TEXT, b"{", fin=False) + frame(TEXT, b"}")),
    "16-bit length that fits 7": (1002, b"\x81\xfe\x00\x7d" + MASK),
    "64-bit length that fits 16": (1002, b"\x81\xff" + (65535).to_bytes(8, "big") + MASK),
    "64-bit length with its highest bit": (1002, b"\x81\xff\x80" + bytes(7) + MASK),
    "one byte too long": (1009, frame(TEXT, b"x" * (LIMIT + 1))[:1000]),
    "a terabyte": (1009, b"\x82\xff" + (1 << 40).to_bytes(8, "big") + MASK),
    "too long in two fragments": (
        1009,
        frame(BINARY, b"1" * LIMIT, fin=False) + frame(CONTINUATION, b"1"),
    ),
    "too many fragments": (1008, frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 5000),
    "invalid UTF-8": (1007, frame(TEXT, b'"\xff"')),
    "UTF-8 cut short": (1007, frame(TEXT, b'"\xe2\x82')),
    "overlong UTF-8": (1007, frame(TEXT, b'"\xc0\xaf"')),
    "surrogate in UTF-8": (1007, frame(TEXT, b'"\xed\xa0\x80"')),
    "invalid UTF-8 in a fragment": (1007, frame(TEXT, b'"\xff', fin=False)),
}


@LEGS
@pytest.mark.parametrize("name", WRONG_FRAMES)
@asynchronous
async def test_wrong_frame(name: str, path: str, relay: Relay) -> None:
    """A frame that breaks RFC 6455 or a limit closes its sender with the right code, on both legs."""
    code, data = WRONG_FRAMES[name]
    assert await _refused(relay, data, path) == code


WRONG_CLOSES = {
    "code 0": (1002, close_frame(0)),
    "code 999": (1002, close_frame(999)),
    "code 1004": (1002, close_frame(1004)),
    "code 1005": (1002, close_frame(1005)),
    "code 1006": (1002, close_frame(1006)),
    "code 1015": (1002, close_frame(1015)),
    "code 2999": (1002, close_frame(2999)),
    "code 5000": (1002, close_frame(5000)),
    "frame of one byte": (1002, frame(CLOSE, b"\x03")),
    "reason that is no UTF-8": (1007, close_frame(1000, b"\xff")),
}


@LEGS
@pytest.mark.parametrize("name", WRONG_CLOSES)
@asynchronous
async def test_wrong_close_frame(name: str, path: str, relay: Relay) -> None:
    """A close frame that RFC 6455 section 7.4 forbids is answered with 1002, or with 1007 for its reason."""
    code, data = WRONG_CLOSES[name]
    assert await _refused(relay, data, path) == code


@LEGS
@pytest.mark.parametrize("name", WRONG_CLOSES)
@asynchronous
async def test_end_after_a_wrong_close_frame(name: str, path: str, relay: Relay) -> None:
    """A close frame that is not allowed ends the connection at once, and affects no other peer."""
    async with unharmed(relay) as siblings:
        server_id = siblings.server_id if path.endswith("client") else fresh_id()
        async with raw_peer(relay, server_id, path) as peer:
            await peer.send(WRONG_CLOSES[name][1])
            await peer.gone()


@LEGS
@asynchronous
async def test_right_close_frame(path: str, relay: Relay) -> None:
    """Every valid close code, and none at all, is answered with a close frame; then the connection ends."""
    codes = (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)
    async with unharmed(relay) as siblings:
        for data in (*map(close_frame, codes), frame(CLOSE), close_frame(1000, b"x" * 123)):
            server_id = siblings.server_id if path.endswith("client") else fresh_id()
            async with raw_peer(relay, server_id, path) as peer:
                await peer.send(data + frame(TEXT, b'"too late"'))
                assert await peer.close_code() == 1000
                await peer.gone()


WRONG_JSON = {
    "nothing": b"",
    "no JSON": b"hello",
    "two values": b"{} {}",
    "cut short": b'{"a":',
    "single quotes": b"{'a':1}",
    "NaN": b"[NaN]",
    "byte order mark": b"\xef\xbb\xbf{}",
    "control character in a string": b'"\n"',
    "trailing comma": b"[1,]",
    "nested 5,000 deep": b"[" * 5000 + b"]" * 5000,
    "objects nested 5,000 deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "opened 100,000 times": b"[" * 100_000,
}


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("name", WRONG_JSON)
@asynchronous
async def test_wrong_json_of_a_phone(name: str, opcode: int, relay: Relay) -> None:
    """A frame that is no JSON text closes its phone with 1007, and no part of it reaches the binary."""
    assert await _refused(relay, frame(opcode, WRONG_JSON[name])) == 1007


@asynchronous
async def test_binary_message_that_is_no_utf8(relay: Relay) -> None:
    """A binary message of a phone must hold UTF-8 as well."""
    assert await _refused(relay, frame(BINARY, b'"\xff"')) == 1007


@asynchronous
async def test_what_came_before_a_wrong_frame(relay: Relay) -> None:
    """Valid frames before an invalid one in a chunk are delivered; those after it are not."""
    async with unharmed(relay) as siblings, raw_peer(relay, siblings.server_id) as peer:
        await peer.send(b"".join(frame(TEXT, text) for text in (b"1", b"2", b"oops", b"3")))
        assert [json.loads(await received(siblings.binary))["frame"] for _ in range(2)] == [1, 2]
        assert await peer.close_code() == 1007


@LEGS
@asynchronous
async def test_leaving_at_every_point_of_a_frame(path: str, relay: Relay) -> None:
    """A peer that vanishes after any byte of its frames, by FIN or RST, leaves nothing behind."""
    data = frame(TEXT, b'"x"', fin=False) + frame(PING, b"p") + frame(CONTINUATION, b" ") + frame(BINARY, b"1" * 126)
    async with unharmed(relay) as siblings:
        for cut in range(len(data)):
            server_id = siblings.server_id if path.endswith("client") else fresh_id()
            async with raw_peer(relay, server_id, path) as peer:
                await peer.send(data[:cut])
                if cut % 2:
                    peer.reset()
            if path.endswith("client") and cut >= data.index(frame(BINARY, b"1" * 126)):
                assert '"frame":"x" }' in await forwarded(siblings.binary)


@asynchronous
async def test_endless_pings(relay: Relay) -> None:
    """Thousands of pings are answered in order, and delay no other peer."""
    async with unharmed(relay) as siblings, raw_peer(relay, siblings.server_id) as peer:
        await peer.send(b"".join(frame(PING, b"%d" % number) for number in range(3000)))
        await siblings.exchange()
        assert [await peer.frame() for _ in range(3000)] == [(PONG, b"%d" % number) for number in range(3000)]


@asynchronous
async def test_unsolicited_pongs(relay: Relay) -> None:
    """Unsolicited pongs are ignored (RFC 6455 section 5.5.3)."""
    async with unharmed(relay) as siblings, raw_peer(relay, siblings.server_id) as peer:
        await peer.send(frame(PONG, bytes(8)) + frame(PONG, b"\xff" * 8) + frame(PONG) + frame(PING, b"?"))
        assert await peer.frame() == (PONG, b"?")


@asynchronous
async def test_frames_right_behind_the_handshake(relay: Relay) -> None:
    """Frames in the same packet as the handshake are read as frames."""
    server_id = fresh_id()
    async with unharmed(relay), raw(relay.address) as eager:
        await eager.send(upgrade("/v1/server", server_id) + frame(TEXT, b"{}") + frame(PING, b"early"))
        assert (await eager.response()).status == 101
        assert await eager.frame() == (PONG, b"early")
