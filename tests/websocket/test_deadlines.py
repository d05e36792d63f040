"""Deadlines of an upgraded connection: heartbeat, slow messages and stalled writes; and pongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.frames import PING, PONG, Decoder, close_frame, frame
from tests.support.harness import Connection, FakeSession, World, answer_pings, assert_closing, request_head
from tests.support.transports import HIGH_WATER_BYTES
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from websockets.frames import Opcode

from pyryrelay.protocol import PeerPolicy
from pyryrelay.runtime.timer_wheel import SLOT_S
from pyryrelay.runtime.transports import Departure
from pyryrelay.websocket import deadlines
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.deadlines import PROBE_LOOK_S, STOPPED_LOOK_S, UNREAD_S
from pyryrelay.websocket.outbox.outbox import Outbox
from pyryrelay.websocket.reading.turns import FIRST_FRAMES

BLOCK = b"#" * (HIGH_WATER_BYTES + 1)
CLOSE_S = WebSocketLimits().close_timeout_s
LATE_S = 2 * SLOT_S
"""Time for one slot of the wheel, and one for a test that advances in small steps."""


# Heartbeat


def test_a_silent_peer_is_pinged_after_30_seconds() -> None:
    """The first ping is sent after the interval, and not before."""
    world = World()
    connection, _ = world.upgraded()
    world.pass_time(29.75)
    assert connection.frames() == []
    world.pass_time(0.25 + LATE_S)
    assert [found.opcode for found in connection.frames()] == [Opcode.PING]


def test_a_peer_that_answers_stays() -> None:
    """A peer that sends pongs stays connected, and is pinged every 30 s."""
    world = World()
    connection, session = world.upgraded()
    pings = 0
    for _ in range(20):
        world.pass_time(15.0)
        pings += answer_pings(connection)
    assert 9 <= pings <= 10
    assert session.closes == []


def test_a_peer_that_does_not_answer_is_closed_within_a_minute() -> None:
    """Without a pong a peer is closed with 1011 `heartbeat timeout` after 60 s, whatever else it sends."""
    world = World()
    connection, session = world.upgraded()
    for _ in range(59):
        world.pass_time(1.0)
        connection.feed(frame(b"chatter") + frame(b"\x00" * 8, PONG))
    assert session.closes == []
    world.pass_time(1.0 + LATE_S)
    assert session.closes == [(1011, "heartbeat timeout")]
    assert_closing(connection, 1011, "heartbeat timeout")


@pytest.mark.parametrize("sign_of_life", ["pong", "message"])
def test_a_probe_is_answered_by_whatever_arrives(sign_of_life: str) -> None:
    """A probe is a ping at once; data that arrives after it answers it, and its callback runs once."""
    world = World()
    connection, session = world.upgraded()
    answers: list[str] = []
    session.peer.ping(lambda: answers.append("alive"))
    (ping,) = connection.frames()
    assert (ping.opcode, answers) == (Opcode.PING, [])
    connection.feed(frame(bytes(ping.data), PONG) if sign_of_life == "pong" else frame(b"on a slow link"))
    assert answers == ["alive"]
    connection.feed(frame(bytes(ping.data), PONG))
    assert answers == ["alive"]


def test_a_probe_of_a_peer_that_is_gone_is_never_answered() -> None:
    """A probe of a lost or closing connection is never answered."""
    world = World()
    connection, session = world.upgraded()
    answers: list[str] = []
    session.peer.ping(lambda: answers.append("alive"))
    session.peer.close(1000)
    session.peer.ping(lambda: answers.append("late"))
    world.pass_time(10.0)
    connection.settle()
    assert answers == []
    world.assert_empty()


@pytest.mark.parametrize(
    ("now", "answered"),
    [
        ((1000, 9000), False),  # Nothing was taken.
        ((4000, 9000), True),  # Something was taken, and the ping is behind more.
        ((5000, 9000), False),  # The ping has arrived, and its pong must come.
        (None, False),
    ],
)
def test_taking_what_is_before_a_ping_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, now: tuple[int, int] | None, answered: bool
) -> None:
    """On a slow line a peer that acknowledges data before a ping answers it, since it cannot have it yet."""
    world = World()
    _, session = world.upgraded()
    position: tuple[int, int] | None = (1000, 5000)
    monkeypatch.setattr(Outbox, "position", lambda self: position)
    answers: list[str] = []
    session.peer.ping(lambda: answers.append("alive"))
    assert answers == []
    position = now
    world.pass_time(PROBE_LOOK_S + LATE_S)
    assert answers == ["alive"] * answered
    position = (9000, 9000)
    world.pass_time(PROBE_LOOK_S + LATE_S)
    assert answers == ["alive"] * answered


def test_it_is_looked_for_progress_until_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is checked for until there is some, or the connection is lost."""
    world = World()
    connection, session = world.upgraded()
    position = (1000, 5000)
    monkeypatch.setattr(Outbox, "position", lambda self: position)
    answers: list[str] = []
    session.peer.ping(lambda: answers.append("alive"))
    world.pass_time(5.0)
    assert answers == []
    position = (1001, 5000)
    world.pass_time(PROBE_LOOK_S + LATE_S)
    assert answers == ["alive"]
    session.peer.ping(lambda: answers.append("again"))
    connection.transport.lose()
    world.assert_empty()


def test_probes_do_not_close_a_peer_that_answers() -> None:
    """Probes more frequent than the round trip do not close a peer that answers all pings."""
    world = World()
    connection, session = world.upgraded()
    under_way: list[list[bytes]] = [[], [], []]
    for _ in range(150):
        session.peer.ping(lambda: None)
        world.pass_time(1.0)
        under_way.append([bytes(found.data) for found in connection.frames() if found.opcode is Opcode.PING])
        for payload in under_way.pop(0):
            connection.feed(frame(payload, PONG))
    assert session.closes == []


# Messages that do not end


@pytest.mark.parametrize("data", [frame(b"hello")[:1], frame(b"hello")[:-1], frame(b"hello", fin=False)])
def test_a_message_must_be_complete_within_30_seconds(data: bytes) -> None:
    """A message that is incomplete 30 s after its first byte closes with 1008."""
    world = World()
    connection, session = world.upgraded()
    world.pass_time(5.0)
    connection.feed(data)
    world.pass_time(29.75)
    assert session.closes == []
    world.pass_time(0.25 + LATE_S)
    assert session.closes == [(1008, "message took too long")]
    assert_closing(connection, 1008, "message took too long")


def test_control_frames_do_not_extend_a_message() -> None:
    """Pings and pongs between fragments do not extend the time of a message."""
    world = World()
    connection, session = world.upgraded()
    connection.feed(frame(b"a", fin=False))
    for _ in range(31):
        world.pass_time(1.0)
        connection.feed(frame(b"", PING) + frame(b"", PONG) + frame(b"b", 0, fin=False))
    assert [code for code, _ in session.closes] == [1008]


def test_many_messages_in_a_row_are_not_one_slow_message() -> None:
    """A peer whose chunks always end inside a message, each another one, is not slow."""
    world = World()
    connection, session = world.upgraded()
    connection.feed(frame(b"hello")[:3])
    for _ in range(60):
        world.pass_time(1.0)
        pings = [frame(bytes(found.data), PONG) for found in connection.frames()]
        connection.feed(b"".join([frame(b"hello")[3:], *pings, frame(b"hello")[:3]]))
    assert len(session.received) == 60
    assert session.closes == []


# Paused peers


def test_a_paused_peer_is_not_pinged_and_not_judged() -> None:
    """A paused peer is not pinged, and its pong and its message are not late."""
    world = World()
    connection, session = world.upgraded()
    world.pass_time(30.0 + LATE_S)
    (ping,) = connection.frames()
    connection.feed(frame(b"hello")[:-1])
    session.peer.pause()
    world.pass_time(300.0)
    assert connection.frames() == []
    assert session.closes == []
    session.peer.resume()
    connection.feed(frame(b"hello")[-1:] + frame(bytes(ping.data), PONG))
    assert session.received == [(b"hello", False)]
    world.pass_time(28.0)
    assert connection.frames() == []
    world.pass_time(1.0 + LATE_S)
    assert answer_pings(connection) == 1


def test_a_peer_that_is_paused_inside_a_chunk_is_not_judged() -> None:
    """A message that begins in the chunk that pauses its peer is not late."""
    world = World()
    connection, session = world.upgraded()
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection.feed(frame(b"first") + frame(b"second")[:-1])
    assert not connection.is_read()
    world.pass_time(40.0)
    assert session.closes == []
    session.peer.resume()
    connection.feed(frame(b"second")[-1:])
    assert session.received == [(b"first", False), (b"second", False)]


def test_a_message_that_a_pause_interrupted_has_the_rest_of_its_time() -> None:
    """After a pause an incomplete message has the rest of its 30 s."""
    world = World()
    connection, session = world.upgraded()
    connection.feed(frame(b"hello")[:-1])
    session.peer.pause()
    world.pass_time(100.0)
    session.peer.resume()
    world.pass_time(29.5)
    assert session.closes == []
    world.pass_time(0.5 + LATE_S)
    assert [code for code, _ in session.closes] == [1008]


def test_what_arrives_behind_the_upgrade_waits_for_a_paused_peer() -> None:
    """Data behind the head of a peer that is paused while it opens waits until it is resumed."""
    world = World()
    world.application.on_opened = lambda session: session.peer.pause()
    connection = world.connect()
    connection.feed(request_head() + frame(b"early") + close_frame(1000))
    (session,) = world.application.sessions
    world.pass_time(40.0)
    assert (session.received, session.closes) == ([], [])
    session.peer.resume()
    assert (session.received, session.closes) == ([(b"early", False)], [(1000, "")])


def test_a_peer_that_is_paused_again_by_what_was_held_stays_paused() -> None:
    """Resuming delivers held data first, and reads on only if that did not pause the peer again."""
    world = World()
    world.application.on_opened = lambda session: session.peer.pause()
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection = world.connect()
    connection.feed(request_head() + frame(b"early"))
    (session,) = world.application.sessions
    session.peer.resume()
    assert session.received == [(b"early", False)]
    assert not connection.is_read()
    session.peer.resume()
    assert connection.is_read()


def test_closing_a_paused_peer_reads_its_answer() -> None:
    """A close resumes reading, so that the closing handshake can complete."""
    world = World()
    connection, session = world.upgraded()
    session.peer.pause()
    session.peer.close(4404)
    assert connection.is_read()
    connection.feed(close_frame(4404))
    connection.settle()
    assert session.closes == [(4404, "")]
    world.assert_empty()


# Peers that leave while they are not read from


@pytest.fixture
def departures(monkeypatch: pytest.MonkeyPatch) -> list[Departure]:
    """What the peer's socket tells from now on, as the only item, and how often it was asked."""
    told = [Departure.CONNECTED]
    monkeypatch.setattr(deadlines, "departure", lambda transport: told[0])
    return told


def waits_for_storage(session: FakeSession, connection: Connection) -> None:
    """A batch that is never taken."""
    session.application.on_messages = lambda session, batch: Deferred()
    connection.feed(frame(b"a"))


WITHHELD: dict[str, Callable[[FakeSession, Connection], None]] = {
    "paused": lambda session, connection: session.peer.pause(),
    "pending": waits_for_storage,
}


@pytest.mark.parametrize("reason", WITHHELD)
def test_a_peer_that_is_reset_while_it_is_not_read_from(departures: list[Departure], reason: str) -> None:
    """A reset is noticed after about a second, and the session is told 1006."""
    world = World()
    connection, session = world.upgraded()
    WITHHELD[reason](session, connection)
    world.pass_time(100.0)
    assert not connection.is_cut_off()
    departures[0] = Departure.RESET
    world.pass_time(STOPPED_LOOK_S + LATE_S)
    assert connection.is_cut_off()
    assert session.closes == []
    connection.settle()
    assert session.closes == [(1006, "")]
    world.assert_empty()


@pytest.mark.parametrize("reason", WITHHELD)
def test_a_peer_that_ends_in_order_while_it_is_not_read_from(departures: list[Departure], reason: str) -> None:
    """If nothing that it sent is unread, its end is read, and the connection ends as if it had been read from."""
    world = World()
    connection, session = world.upgraded()
    WITHHELD[reason](session, connection)
    departures[0] = Departure.ENDED
    world.pass_time(STOPPED_LOOK_S + LATE_S)
    assert connection.is_read()
    assert not connection.is_cut_off()
    connection.transport.lose(ConnectionDone())
    assert session.closes == [(1006, "")]
    world.assert_empty()


@pytest.mark.parametrize("reason", WITHHELD)
def test_last_frames_wait_for_a_bounded_time(departures: list[Departure], reason: str) -> None:
    """What a peer sent before it left waits until it can be read, for 30 s at most."""
    world = World()
    connection, session = world.upgraded()
    WITHHELD[reason](session, connection)
    departures[0] = Departure.UNREAD
    world.pass_time(UNREAD_S)
    assert not connection.is_cut_off()
    assert not connection.is_read()
    world.pass_time(STOPPED_LOOK_S + LATE_S)
    assert connection.is_cut_off()
    connection.settle()
    assert session.closes == [(1006, "")]
    world.assert_empty()


def test_last_frames_that_are_read_in_time_are_delivered(departures: list[Departure]) -> None:
    """A peer that is resumed within the time loses nothing, and each pause has its own time."""
    world = World()
    connection, session = world.upgraded()
    departures[0] = Departure.UNREAD
    for number in range(3):
        session.peer.pause()
        world.pass_time(UNREAD_S - 1.0)
        session.peer.resume()
        connection.feed(frame(b"%d" % number))
    assert session.received == [(b"0", False), (b"1", False), (b"2", False)]
    connection.transport.lose(ConnectionDone())
    assert session.closes == [(1006, "")]
    world.assert_empty()


def held_bytes(world: World, connection: Connection, session: FakeSession) -> None:
    """Bytes that were read when the peer was paused."""
    session.peer.pause()
    connection.protocol.dataReceived(frame(b"held"))


def held_close_frame(world: World, connection: Connection, session: FakeSession) -> None:
    """A close frame behind a batch that is not taken yet."""
    world.application.on_messages = lambda session, batch: Deferred()
    connection.feed(frame(b"a") + close_frame(1000))


def held_frames(world: World, connection: Connection, session: FakeSession) -> None:
    """More frames than one turn takes."""
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection.feed(frame(b"a") * (2 * FIRST_FRAMES))


@pytest.mark.parametrize("hold", [held_bytes, held_close_frame, held_frames])
def test_what_was_read_already_counts_as_unread(
    departures: list[Departure], hold: Callable[[World, Connection, FakeSession], None]
) -> None:
    """A peer that has ended its side is waited for while anything that it sent is not processed."""
    world = World()
    connection, session = world.upgraded()
    hold(world, connection, session)
    departures[0] = Departure.ENDED
    world.pass_time(UNREAD_S)
    assert not connection.is_cut_off()
    assert not connection.is_read()
    world.pass_time(STOPPED_LOOK_S + LATE_S)
    assert connection.is_cut_off()


def test_what_a_layer_may_hold_counts_as_unread(departures: list[Departure]) -> None:
    """Below TLS nothing is known of what was decrypted already, so the peer is waited for."""
    world = World()
    connection, session = world.upgraded()
    (websocket,) = world.factory.open
    wrapper: Any = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
    wrapper.transport = connection.transport
    websocket.transport = wrapper
    session.peer.pause()
    departures[0] = Departure.ENDED
    world.pass_time(STOPPED_LOOK_S + LATE_S)
    assert not connection.is_read()


def test_peers_that_are_read_from_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an open connection nor one that is ending is looked at, nor one that only waits for its turn."""
    asked: list[object] = []
    monkeypatch.setattr(deadlines, "departure", asked.append)
    world = World()
    connection, session = world.upgraded()
    world.pass_time(20.0)
    session.peer.pause()
    session.peer.resume()
    world.pass_time(9.0)
    (websocket,) = world.factory.open
    websocket._read_pause.put_off = True
    websocket._update_reading()
    world.pass_time(9.0)
    session.peer.pause()
    session.peer.close(4404)
    world.pass_time(CLOSE_S + LATE_S)
    assert asked == []
    connection.settle()
    world.assert_empty()


# Writes that stall


STALL = PeerPolicy(stall_timeout_s=10.0, stall_reason="stalled")


def test_a_peer_that_takes_nothing_for_10_seconds_is_closed() -> None:
    """A transport that is blocked for the stall time closes with 1011 and the policy's reason, and is aborted."""
    world = World(policy=STALL)
    connection, session = world.upgraded(peer_reads=False)
    world.pass_time(3.0)
    session.peer.send([BLOCK, b"waiting"])
    world.pass_time(9.75)
    assert session.closes == []
    world.pass_time(0.25 + LATE_S)
    assert session.closes == [(1011, "stalled")]
    world.pass_time(5.0 + LATE_S)
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()


def test_a_peer_that_answers_pings_but_takes_nothing_is_closed() -> None:
    """A peer that does not read is closed even if it sends pongs."""
    world = World(policy=PeerPolicy(stall_timeout_s=60.0, stall_reason="stalled"))
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK, b"waiting"])
    pings = []
    for _ in range(59):
        world.pass_time(1.0)
        session.peer.ping(lambda: None)
        pings = [bytes(found.data) for found in Decoder().decode(bytes(connection.transport.waiting)[-18:])]
        connection.feed(frame(pings[0], PONG))
    assert (len(pings), session.closes) == (1, [])
    world.pass_time(1.0 + LATE_S)
    assert session.closes == [(1011, "stalled")]


def test_a_peer_that_does_not_read_cannot_guess_its_pongs() -> None:
    """Payloads that were counted on, or are those of another connection, answer no ping."""
    world = World()
    other, _ = world.upgraded()
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK, b"waiting"])
    for second in range(59):
        world.pass_time(1.0)
        seen = [bytes(found.data) for found in other.frames() if found.opcode is Opcode.PING]
        for payload in seen:
            other.feed(frame(payload, PONG))
        guesses = [number.to_bytes(8, "big") for number in range(second + 2)]
        connection.feed(b"".join(frame(guess, PONG) for guess in (*seen, *guesses)))
    assert session.closes == []
    world.pass_time(1.0 + LATE_S)
    assert session.closes == [(1011, "heartbeat timeout")]


def test_a_peer_that_reads_slowly_has_not_stalled() -> None:
    """Every slice that is taken restarts the time."""
    world = World(policy=STALL)
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK] * 5)
    for _ in range(4):
        world.pass_time(8.0)
        connection.transport.read()
    assert session.closes == []
    world.pass_time(10.0 + LATE_S)
    assert session.closes == [(1011, "stalled")]


def test_a_transport_that_pongs_filled_stalls_too() -> None:
    """A peer that pings and never reads is closed in the same time as one that gets messages."""
    world = World(policy=STALL)
    connection, session = world.upgraded(peer_reads=False)
    for _ in range(600):
        connection.feed(frame(b"p" * 125, PING))
    assert len(connection.transport.waiting) > HIGH_WATER_BYTES
    world.pass_time(10.0 + LATE_S)
    assert session.closes == [(1011, "stalled")]


def test_without_a_stall_time_only_the_heartbeat_judges() -> None:
    """Without a stall time a peer that does not read is closed by its heartbeat only."""
    world = World()
    _, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK, b"waiting"])
    world.pass_time(59.0)
    assert session.closes == []
    world.pass_time(1.0 + LATE_S)
    assert session.closes == [(1011, "heartbeat timeout")]


# Pongs


def test_pings_are_answered_in_order() -> None:
    """A peer that reads gets a pong with its payload for each ping."""
    world = World()
    connection, _ = world.upgraded()
    connection.feed(frame(b"1", PING) + frame(b"", PING) + frame(b"x" * 125, PING))
    assert [(found.opcode, bytes(found.data)) for found in connection.frames()] == [
        (Opcode.PONG, b"1"),
        (Opcode.PONG, b""),
        (Opcode.PONG, b"x" * 125),
    ]


def test_a_peer_that_does_not_read_is_owed_the_latest_pong_only() -> None:
    """RFC 6455 section 5.5.3: only the most recent ping need be answered, so a flood of pings uses no memory."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK, b"waiting"])
    size = len(connection.transport.waiting)
    for number in range(5000):
        connection.feed(frame(b"%d" % number, PING))
    assert len(connection.transport.waiting) == size
    connection.transport.read_all()
    frames = connection.frames()
    assert [bytes(found.data) for found in frames if found.opcode is Opcode.PONG] == [b"4999"]
    assert [bytes(found.data) for found in frames if found.opcode is Opcode.TEXT] == [BLOCK, b"waiting"]
    connection.transport.peer_reads = True
    connection.feed(frame(b"again", PING))
    assert connection.payloads() == [b"again"]


def test_an_owed_pong_is_not_sent_after_our_close() -> None:
    """After our close frame no pong is sent."""
    world = World(policy=PeerPolicy(outbox_bytes=1))
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK])
    connection.feed(frame(b"owed", PING))
    session.peer.send([b"a", b"b"])
    connection.transport.read_all()
    assert_closing(connection, 1011, "backlog full")
