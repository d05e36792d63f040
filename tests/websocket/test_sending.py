"""What peers are sent: messages, in order, until their outbox is full."""

from __future__ import annotations

import struct

import pytest
from tests.support.frames import frame
from tests.support.harness import ALICE, PATH, World, assert_closing, client_of
from tests.support.transports import HIGH_WATER_BYTES
from websockets.frames import Opcode

from pyryrelay.protocol import PeerPolicy, Request
from pyryrelay.websocket.context import WebSocketLimits

LIMIT = 1000
SMALL = WebSocketLimits(fragments=4)
BLOCK = b"#" * (HIGH_WATER_BYTES + 1)


def test_batches_are_sent_in_order() -> None:
    """Messages are sent as text unless they are binary, in the order of the calls."""
    world = World()
    connection, session = world.upgraded()
    session.peer.send([b"a", b"b" * 70_000])
    session.peer.send([b"\xff"], binary=True)
    session.peer.send([])
    assert [(found.opcode, bytes(found.data)) for found in connection.frames()] == [
        (Opcode.TEXT, b"a"),
        (Opcode.TEXT, b"b" * 70_000),
        (Opcode.BINARY, b"\xff"),
    ]
    assert session.peer.buffered_bytes == 0


def test_an_envelope_around_the_largest_message_can_be_sent() -> None:
    """The limit on messages is for received ones."""
    world = World(limits=SMALL, max_message_bytes=LIMIT)
    connection, session = world.upgraded()
    session.peer.send([b"x" * (LIMIT + 100)])
    assert connection.payloads() == [b"x" * (LIMIT + 100)]


def test_what_a_slow_peer_cannot_take_waits_in_order() -> None:
    """Frames for a peer that does not read are counted and delivered in order, then `on_drain` is called once."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    drains: list[int] = []
    session.peer.on_drain = lambda: drains.append(session.peer.buffered_bytes)
    payloads = [b"%d" % number * 10_000 for number in range(50)]
    for payload in payloads:
        session.peer.send([payload])
    assert session.peer.buffered_bytes > 400_000
    connection.transport.read()
    assert drains == []
    connection.transport.read_all()
    assert drains == [0]
    assert connection.payloads() == payloads


def test_a_session_may_send_when_it_has_drained() -> None:
    """Messages that `on_drain` sends follow, and can block again."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    left = [BLOCK] * 3

    def refill() -> None:
        if left:
            session.peer.send([left.pop()])

    session.peer.on_drain = refill
    refill()
    connection.transport.read_all()
    assert connection.payloads() == [BLOCK] * 3


@pytest.mark.parametrize(
    "policy",
    [
        PeerPolicy(outbox_bytes=16 * 100, outbox_reason="phone backlog full"),
        PeerPolicy(outbox_bytes=16 * 200, frame_overhead_bytes=100, outbox_reason="phone backlog full"),
    ],
)
def test_a_full_backlog_closes_its_peer_alone(policy: PeerPolicy) -> None:
    """One frame over the limit closes the peer with 1011 and the policy's reason; its siblings go on."""
    world = World(policy=policy)
    bystander, other = world.upgraded("203.0.113.9")
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK])
    for _ in range(15):
        session.peer.send([b"x" * 90])
    assert session.closes == []
    for _ in range(3):
        session.peer.send([b"x" * 200])
    assert session.closes == [(1011, "phone backlog full")]
    other.peer.send([b"unharmed"])
    assert bystander.payloads() == [b"unharmed"]
    connection.transport.read_all()
    assert_closing(connection, 1011, "phone backlog full")
    connection.feed(frame(struct.pack("!H", 1011), 8))
    connection.settle()
    bystander.transport.lose()
    world.assert_empty()


def test_a_source_is_told_when_nothing_of_it_waits() -> None:
    """`on_source_drain` is called for each source whose frames had to wait, and `waiting_bytes` counts them."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    told: list[object] = []
    session.peer.on_source_drain = told.append
    session.peer.send([BLOCK])
    session.peer.send([b"a" * 1000], source="one")
    session.peer.send([b"b" * 1000], source="two")
    assert session.peer.waiting_bytes("one") >= 1000
    connection.transport.read_all()
    assert sorted(map(str, told)) == ["one", "two"]
    assert session.peer.waiting_bytes("one") == 0


def test_before_the_upgrade_nothing_is_sent_or_counted() -> None:
    """A connection whose outbox does not exist yet has nothing to say."""
    world = World()
    websocket = world.factory.build(Request(PATH, {}, client_of(ALICE)))
    websocket.send([b"early"])
    websocket.send_unsolicited_pong()
    websocket.flush()
    assert (websocket.buffered_bytes, websocket.waiting_bytes("any")) == (0, 0)


def test_a_pong_that_was_not_asked_for() -> None:
    """It goes out unless the peer does not read, or the connection is closing."""
    world = World()
    connection, session = world.upgraded()
    (websocket,) = world.factory.open
    websocket.send_unsolicited_pong()
    assert [(found.opcode, bytes(found.data)) for found in connection.frames()] == [(Opcode.PONG, b"")]
    connection.transport.peer_reads = False
    session.peer.send([BLOCK])
    websocket.send_unsolicited_pong()
    connection.transport.read_all()
    assert [found.opcode for found in connection.frames()] == [Opcode.TEXT]
    connection.transport.peer_reads = True
    session.peer.close(1000)
    websocket.send_unsolicited_pong()
    assert [found.opcode for found in connection.frames()] == [Opcode.CLOSE]
