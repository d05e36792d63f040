"""The relay's connection and a plain Autobahn server look the same to a peer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import txaio
from autobahn.twisted.websocket import WebSocketServerProtocol
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.frames import CONTINUATION, PING, PONG, Decoder, close_of, fragments, frame, header
from tests.support.harness import World, request_head
from tests.support.plain_server import plain_server
from twisted.internet.task import Clock
from websockets.frames import Opcode

from pyryrelay.protocol import Message

LIMIT = 500


@dataclass
class Seen:
    """The outcome of a stream: messages delivered, pongs, and code and reason of a close frame."""

    messages: list[Message] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    closes: list[tuple[int, str]] = field(default_factory=list)

    def take(self, sent: bytes) -> Seen:
        """Add what the server sent after its handshake."""
        for found in Decoder().decode(sent):
            if found.opcode is Opcode.PONG:
                self.pongs.append(bytes(found.data))
            else:
                self.closes.append(close_of(found) if found.data else (0, ""))
        return self


class Plain(WebSocketServerProtocol):
    """Autobahn with the close code 1014 added, which IANA has registered after Autobahn's list was made."""

    log = txaio.make_logger(level="critical")  # type: ignore[attr-defined]
    seen: Seen

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:  # noqa: N803  # Autobahn's name for it
        """Treat 1014 like the code before it."""
        return super().onCloseFrame(1013 if code == 1014 else code, reasonRaw)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Record the message."""
        self.seen.messages.append((payload, isBinary))


def plain(pieces: Sequence[bytes]) -> Seen:
    """Return the outcome of a stream in pieces for a plain Autobahn server."""
    protocol, transport = plain_server(
        Clock(), Plain, failByDrop=False, maxMessagePayloadSize=LIMIT, maxFramePayloadSize=LIMIT
    )
    protocol.seen = Seen()
    protocol.dataReceived(request_head())
    transport.taken.clear()
    for piece in pieces:
        protocol.dataReceived(piece)
    return protocol.seen.take(bytes(transport.taken))


def ours(pieces: Sequence[bytes]) -> Seen:
    """Return the outcome for the relay's connection."""
    world = World(max_message_bytes=LIMIT)
    connection, session = world.upgraded()
    for piece in pieces:
        connection.feed(piece)
    return Seen(session.received).take(connection.take())


_TEXTS = st.one_of(st.text(max_size=30).map(str.encode), st.sampled_from([b"x" * 125, b"x" * 126, b"x" * LIMIT]))
_PAYLOADS = st.one_of(_TEXTS, st.binary(max_size=30))
_OPCODES = st.integers(0, 15)
_CODES = st.one_of(st.integers(0, 5000), st.sampled_from([1000, 1001, 1004, 1005, 1006, 1012, 1014, 1015, 2999, 3000]))
_CLOSES = st.one_of(
    st.just(b""),
    st.binary(max_size=4),
    st.tuples(_CODES, _PAYLOADS.map(lambda reason: reason[:123])).map(lambda it: struct.pack("!H", it[0]) + it[1]),
)
_OBEDIENT = st.one_of(
    _TEXTS.map(frame),
    st.binary(max_size=300).map(lambda payload: frame(payload, 2)),
    st.lists(_TEXTS.filter(lambda part: len(part) < 100), min_size=1, max_size=4).map(
        lambda parts: b"".join(fragments(parts))
    ),
    st.binary(max_size=125).map(lambda payload: frame(payload, PING)),
    st.binary(max_size=125).map(lambda payload: frame(payload, PONG)),
)
_ANY_FRAME = st.builds(
    frame,
    _PAYLOADS,
    _OPCODES,
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 1, 4]),
    mask=st.sampled_from([b"\x37\xfa\x21\x3d", b"\0\0\0\0", b"\xff\0\xff\0", b"abcd", None]),
)
_ODD = st.one_of(
    _ANY_FRAME,
    _CLOSES.map(lambda payload: frame(payload, 8)),
    _PAYLOADS.map(lambda payload: frame(payload, fin=False)),
    _PAYLOADS.map(lambda payload: frame(payload, CONTINUATION)),
    st.just(b"\x81\xfe\x00\x05" + bytes(9)),
    st.just(b"\x82\xff" + bytes(6) + b"\xff\xff" + bytes(4 + 65535)),
    st.integers(LIMIT + 1, LIMIT + 10).map(lambda size: frame(bytes(size))),
    st.integers(LIMIT + 1, (1 << 64) - 1).map(lambda size: header(size) + bytes(4)),
    st.tuples(_PAYLOADS, _PAYLOADS).map(lambda parts: b"".join(fragments(parts))),
    st.tuples(st.just(bytes(LIMIT)), _PAYLOADS).map(lambda parts: b"".join(fragments(parts))),
)
_STREAMS = st.one_of(
    st.lists(_OBEDIENT, max_size=8),
    st.tuples(st.lists(_OBEDIENT, max_size=4), st.lists(_ODD, max_size=4)).map(lambda both: both[0] + both[1]),
).map(b"".join)


def cut(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Return the stream in pieces."""
    return [stream[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True)]


@settings(max_examples=400)
@given(stream=_STREAMS, data=st.data())
def test_a_peer_sees_no_difference(stream: bytes, data: st.DataObject) -> None:
    """Messages, pongs, close code and reason are the same for any stream of frames, wherever it is cut."""
    cuts = st.lists(st.integers(0, len(stream)), max_size=10)
    expected = plain(cut(stream, data.draw(cuts)))
    found = ours(cut(stream, data.draw(cuts)))
    assert found == expected


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("first", range(256))
def test_every_first_byte(first: int, size: int) -> None:
    """The outcome is the same for each first byte of a frame, outside a message and inside one."""
    for before in (b"", frame(b"begun", fin=False), frame(b"\xc3", fin=False)):
        for second in (0x80, 0x81, 0x85, 0xFE, 0xFF, 0x05):
            stream = before + bytes((first, second)) + bytes(24)
            pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
            assert ours(pieces) == plain(pieces), (before, second)
