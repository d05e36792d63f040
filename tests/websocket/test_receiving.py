"""What peers send: messages, in batches; limits and rules of frames."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, close_frame, close_of, fragments, frame, header
from tests.support.harness import World, request_head
from websockets.frames import Opcode

from pyryrelay.guard import ByteQuota, Quota, ThrottlePolicy
from pyryrelay.protocol import Message
from pyryrelay.websocket.context import WebSocketLimits

LIMIT = 1000
SMALL = WebSocketLimits(fragments=4)


def test_the_messages_of_a_chunk_are_one_batch() -> None:
    """All whole messages of a chunk are one batch, and those of the next chunk are another."""
    world = World()
    connection, session = world.upgraded()
    connection.feed(frame(b"a") + frame(b"\x00", BINARY) + frame(b"") + frame(b"d")[:-1])
    connection.feed(frame(b"d")[-1:])
    assert session.batches == [[(b"a", False), (b"\x00", True), (b"", False)], [(b"d", False)]]


def test_fragments_are_one_message() -> None:
    """A message in fragments is delivered whole, even with control frames between them."""
    world = World()
    connection, session = world.upgraded()
    first, second, third = fragments([b"one,", b"", b"two"], BINARY)
    connection.feed(first + frame(b"!", PING) + second)
    assert session.batches == []
    connection.feed(frame(b"", PONG) + third)
    assert session.batches == [[(b"one,two", True)]]
    assert [(found.opcode, bytes(found.data)) for found in connection.frames()] == [(Opcode.PONG, b"!")]


@pytest.mark.parametrize("parts", [[LIMIT], [LIMIT - 1, 1], [0, 1, LIMIT - 1, 0]])
def test_the_largest_message_is_received(parts: list[int]) -> None:
    """A message of exactly the limit, in as many fragments as are allowed, is delivered."""
    world = World(limits=SMALL, max_message_bytes=LIMIT)
    connection, session = world.upgraded()
    for data in fragments([b"x" * size for size in parts]):
        connection.feed(data)
    assert session.received == [(b"x" * LIMIT, False)]


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (header(LIMIT + 1), 1009, None),
        (header(1 << 62, BINARY), 1009, None),
        (b"".join(fragments([b"x" * LIMIT, b"x"])), 1009, None),
        (b"".join(fragments([b"x"] * 5)), 1008, "too many fragments"),
        (b"".join(fragments([b""] * 6)), 1008, "too many fragments"),
        (frame(b"\xff"), 1007, None),
        (frame(b"\xc3"), 1007, None),
        (b"".join(fragments([b"\xc3", b"\x28"])), 1007, None),
        (frame(b"\xed\xa0\x80"), 1007, None),
        (frame(b"a", mask=None), 1002, None),
        (frame(b"a", rsv=4), 1002, None),
        (frame(b"a", 3), 1002, None),
        (frame(b"a", 11), 1002, None),
        (frame(b"a", CONTINUATION), 1002, None),
        (frame(b"a", fin=False) + frame(b"a"), 1002, None),
        (frame(b"a", PING, fin=False), 1002, None),
        (frame(b"a" * 126, PING), 1002, None),
        (b"\x81\xfe\x00\x05" + bytes(9), 1002, None),
        (frame(b"\x03", 8), 1002, None),
        (frame(struct.pack("!H", 1000) + b"\xff", 8), 1007, None),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_protocol_errors_close_their_sender(data: bytes, code: int, reason: str | None, cut: bool) -> None:
    """Each protocol error has its close code; whole messages before it are delivered, and later ones are not."""
    world = World(limits=SMALL, max_message_bytes=LIMIT)
    bystander, other = world.upgraded("203.0.113.9")
    connection, session = world.upgraded()
    if cut:
        connection.feed(frame(b"before"))
        for at in range(len(data)):
            connection.feed(data[at : at + 1])
    else:
        connection.feed(frame(b"before") + data)
    connection.feed(frame(b"after"))
    found_code, found_reason = close_of(connection.frames()[0])
    assert found_code == code
    assert reason is None or found_reason == reason
    assert [found for found, _ in session.closes] == [code]
    if reason is None or cut:
        assert session.received == [(b"before", False)]
    bystander.feed(frame(b"unharmed"))
    assert other.received == [(b"unharmed", False)]
    bystander.transport.lose()
    world.pass_time(10.0)
    connection.settle()
    assert connection.is_lost()
    world.assert_empty()


def test_messages_before_a_breach_are_delivered() -> None:
    """Whole messages before a breach of limits in a chunk reach the session before the end does."""
    world = World(limits=SMALL, max_message_bytes=LIMIT)
    connection, session = world.upgraded()
    connection.feed(frame(b"before") + b"".join(fragments([b"x"] * 5)))
    assert session.received == [(b"before", False)]
    assert [code for code, _ in session.closes] == [1008]


def test_binary_messages_may_hold_anything() -> None:
    """Only text must be UTF-8, and fragments may cut a character."""
    world = World()
    connection, session = world.upgraded()
    connection.feed(frame(b"\xff\xfe", BINARY) + b"".join(fragments([b"\xc3", b"\xa4"])))
    assert session.received == [(b"\xff\xfe", True), ("ä".encode(), False)]


_MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.text(max_size=40).map(str.encode), st.just(False)),
        st.tuples(st.binary(max_size=300), st.just(True)),
    ),
    max_size=8,
)


@given(messages=_MESSAGES, data=st.data())
def test_every_message_arrives_complete_and_in_order(messages: list[Message], data: st.DataObject) -> None:
    """Messages arrive however they are fragmented, mixed with control frames and cut by the network."""
    world = World()
    connection, session = world.upgraded()
    stream, pings = bytearray(), 0
    for payload, binary in messages:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for part in fragments(parts, BINARY if binary else TEXT):
            stream += part
            if data.draw(st.booleans()):
                pings += 1
                stream += frame(b"%d" % pings, PING)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        connection.feed(bytes(stream[a:b]))
    assert session.received == messages
    assert all(session.batches)
    assert connection.payloads() == [b"%d" % number for number in range(1, pings + 1)]
    assert session.closes == []


# Pausing


def test_a_session_may_pause_its_peer_while_it_opens() -> None:
    """A peer that is paused while it opens is not read from, and goes on later without a loss."""
    world = World()
    world.application.on_opened = lambda session: session.peer.pause()
    connection = world.connect()
    connection.feed(request_head() + frame(b"early")[:-1])
    session = world.application.sessions[0]
    assert not connection.is_read()
    session.peer.resume()
    connection.feed(frame(b"early")[-1:] + frame(b"more"))
    assert session.received == [(b"early", False), (b"more", False)]


def test_pausing_stops_reading_and_resuming_goes_on() -> None:
    """A paused peer is not read from, and the rest of the chunk was delivered."""
    world = World()
    connection, session = world.upgraded()
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection.feed(frame(b"a") + frame(b"b"))
    assert not connection.is_read()
    assert session.received == [(b"a", False), (b"b", False)]
    session.peer.pause()
    session.peer.resume()
    session.peer.resume()
    assert connection.is_read()
    connection.feed(frame(b"c"))
    assert session.received[-1] == (b"c", False)


# Below TLS


@pytest.mark.parametrize(("size", "records"), [(100, 0), (0, 7)])
def test_what_tls_needs_is_charged(size: int, records: int) -> None:
    """Bytes beside the plaintext count as bytes, and records without any count as pings."""
    quota = Quota.parse("1/s burst 5")
    world = World(throttle=ThrottlePolicy(bytes=ByteQuota(1, 1.0, 50), pings=quota))
    connection, _ = world.upgraded()
    (websocket,) = world.factory.open
    websocket.received_below(size, records)
    connection.feed(frame(b"a"))
    assert not connection.is_read()
    connection.transport.lose()
    world.assert_empty()


def test_messages_that_end_the_connection_end_it_before_what_is_behind_them() -> None:
    """A session that fails its own peer is not told of the close frame behind its messages."""
    world = World()
    world.application.on_messages = lambda session, batch: world.factory.abort()
    for data in (close_frame(4001), frame(b"\xff"), frame(b"a", mask=None)):
        connection, session = world.upgraded()
        connection.feed(frame(b"a") + data)
        assert connection.is_cut_off()
        connection.settle()
        assert session.closes == [(1006, "")]
    world.assert_empty()
