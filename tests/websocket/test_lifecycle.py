"""How connections end: with one close code each, reported once, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.frames import CLOSE, PING, close_frame, close_of, frame, header
from tests.support.harness import BOB, Connection, FakeSession, World, assert_closing, request_head
from tests.support.transports import HIGH_WATER_BYTES
from twisted.internet.error import ConnectionDone
from websockets.frames import Opcode

from pyryrelay.runtime.timer_wheel import SLOT_S
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.factory import SHUTTING_DOWN
from pyryrelay.websocket.lifecycle import Lifecycle

BLOCK = b"#" * (HIGH_WATER_BYTES + 1)
LIMITS = WebSocketLimits()
CLOSE_S = LIMITS.close_timeout_s

Ending = Callable[[World, Connection, FakeSession], None]


def peer_closes_byte_by_byte(world: World, connection: Connection, session: FakeSession) -> None:
    """Receive a close frame in single bytes."""
    for byte in close_frame(3000):
        connection.feed(bytes((byte,)))


def peer_closes_and_hangs_up(world: World, connection: Connection, session: FakeSession) -> None:
    """Receive a close frame from a peer that does not wait for the answer."""
    connection.feed(close_frame(1000))
    connection.transport.lose()


def we_close(world: World, connection: Connection, session: FakeSession) -> None:
    """Close, and receive the answer."""
    session.peer.close(4404, "no server")
    assert_closing(connection, 4404, "no server")
    assert session.closes == []
    connection.feed(close_frame(4404))


def we_close_unanswered(world: World, connection: Connection, session: FakeSession) -> None:
    """Close, and receive no answer."""
    session.peer.close(4404, "no server")
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    assert connection.is_cut_off()


def we_close_and_it_is_lost(world: World, connection: Connection, session: FakeSession) -> None:
    """Close, and lose the connection before the answer."""
    session.peer.close(4404)
    connection.transport.lose()


def both_close(world: World, connection: Connection, session: FakeSession) -> None:
    """Close on both sides at once."""
    session.peer.close(4404)
    connection.feed(close_frame(1000))


def heartbeat(world: World, connection: Connection, session: FakeSession) -> None:
    """Receive no pong."""
    world.pass_time(60.0 + 2 * SLOT_S)
    assert_closing(connection, 1011, "heartbeat timeout")
    world.pass_time(CLOSE_S + 2 * SLOT_S)


def slow_message(world: World, connection: Connection, session: FakeSession) -> None:
    """Receive no end of a message."""
    connection.feed(frame(b"hello")[:-1])
    world.pass_time(30.0 + 2 * SLOT_S)
    connection.feed(close_frame(1008))


def lost_mid_frame(world: World, connection: Connection, session: FakeSession) -> None:
    """Lose the connection inside a frame."""
    connection.feed(frame(b"hello")[:-1])
    connection.transport.lose()


ENDINGS: dict[str, tuple[Ending, int]] = {
    "peer closes": (lambda w, c, s: c.feed(close_frame(1001, b"moving on")), 1001),
    "peer closes with a code of the registry": (lambda w, c, s: c.feed(close_frame(1014)), 1014),
    "peer closes byte by byte": (peer_closes_byte_by_byte, 3000),
    "peer closes without a code": (lambda w, c, s: c.feed(close_frame(None)), 1005),
    "peer closes with a code that is not for the wire": (lambda w, c, s: c.feed(close_frame(1005)), 1005),
    "peer closes with an unassigned code": (lambda w, c, s: c.feed(close_frame(999)), 999),
    "peer closes and hangs up": (peer_closes_and_hangs_up, 1000),
    "we close": (we_close, 4404),
    "we close, unanswered": (we_close_unanswered, 4404),
    "we close, lost": (we_close_and_it_is_lost, 4404),
    "both close": (both_close, 4404),
    "protocol error": (lambda w, c, s: c.feed(frame(b"a", mask=None)), 1002),
    "lost": (lambda w, c, s: c.transport.lose(), 1006),
    "hung up": (lambda w, c, s: c.transport.lose(ConnectionDone()), 1006),
    "lost mid-frame": (lost_mid_frame, 1006),
    "heartbeat": (heartbeat, 1011),
    "slow message": (slow_message, 1008),
    "shutdown": (lambda w, c, s: w.factory.shut_down(), 1001),
    "abort": (lambda w, c, s: w.factory.abort(), 1006),
}


NEEDS_NOTHING = ("lost", "hung up", "abort", "shutdown", "we close, unanswered", "we close, lost")
"""Endings of a peer that is not read from, or does not read."""
SENT_BY_THE_PEER = ("peer closes", "peer closes without a code", "peer closes and hangs up", "protocol error")
"""Endings that a peer which does not read can cause."""
NEVER_SENT = ("shutdown", "we close, unanswered", "we close, lost")
"""Endings whose close frame waits behind unread data: no close frame was exchanged, so the code is 1006."""


@pytest.mark.parametrize(
    ("name", "paused", "blocked"),
    [
        *((name, False, False) for name in ENDINGS),
        *((name, False, True) for name in SENT_BY_THE_PEER),
        *((name, paused, blocked) for name in NEEDS_NOTHING for paused, blocked in [(True, False), (False, True)]),
    ],
)
def test_every_ending_is_told_once(name: str, paused: bool, blocked: bool) -> None:
    """Whatever ends a connection, its session is told once with the right code, and nothing is left."""
    ending, code = ENDINGS[name]
    world = World()
    connection, session = world.upgraded(peer_reads=not blocked)
    if blocked:
        session.peer.send([BLOCK, b"waiting"])
        code = 1006 if name in NEVER_SENT else code
    if paused:
        session.peer.pause()
    ending(world, connection, session)
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    connection.settle()
    assert connection.is_lost()
    assert [found for found, _ in session.closes] == [code]
    world.assert_empty()
    connection.transport.lose()
    assert len(session.closes) == 1


def test_the_peers_reason_is_passed_on() -> None:
    """The session gets code and reason of the peer's close frame, which is answered before our side ends."""
    world = World()
    connection, session = world.upgraded()
    connection.feed(close_frame(4001, "grüße".encode()))
    assert session.closes == [(4001, "grüße")]
    assert [found.opcode.name for found in connection.frames()] == ["CLOSE"]
    assert connection.has_ended()


def test_a_message_right_before_the_close_is_delivered() -> None:
    """The batch of the chunk is delivered before the end."""
    world = World()
    connection, session = world.upgraded()
    connection.feed(frame(b"last words") + close_frame() + frame(b"ghost"))
    assert session.received == [(b"last words", False)]
    assert session.closes == [(1000, "")]


STOPS = {
    "close frame": (close_frame(1001), 1000),
    "invalid text": (frame(b"\xff"), 1007),
    "bad header": (frame(b"a", mask=None), 1002),
}


@pytest.mark.parametrize("name", STOPS)
def test_last_words_can_be_answered(name: str) -> None:
    """Answers of a session to the last messages are sent before the close frame."""
    data, code = STOPS[name]
    world = World()
    connection, session = world.upgraded()
    world.application.on_messages = lambda session, batch: session.peer.send([b"heard you"])
    connection.feed(frame(b"last words") + data)
    answer, last = connection.frames()
    assert (bytes(answer.data), close_of(last)[0]) == (b"heard you", code)
    assert session.received == [(b"last words", False)]


@pytest.mark.parametrize("name", STOPS)
def test_a_session_may_close_before_its_peer_does(name: str) -> None:
    """If a message makes the session close its peer, that close counts, whatever comes after the message."""
    data, _ = STOPS[name]
    world = World()
    connection, session = world.upgraded()
    world.application.on_messages = lambda session, batch: session.peer.close(4404, "no")
    connection.feed(frame(b"last words") + data)
    assert_closing(connection, 4404, "no")
    assert session.closes == [(4404, "")]
    if name == "invalid text":
        assert connection.is_read(), "its answer to our close frame would be lost"
    connection.feed(close_frame(4404))
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    connection.settle()
    assert len(session.closes) == 1
    world.assert_empty()


def test_a_peer_that_was_paused_can_answer_our_close() -> None:
    """A connection that ends is read from again, so that the peer's close frame can arrive."""
    world = World()
    connection, session = world.upgraded()
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection.feed(frame(b"too much") + frame(b"\xff"))
    assert [close_of(found)[0] for found in connection.frames()] == [1007]
    assert connection.is_read()
    connection.feed(close_frame(1007))
    connection.settle()
    assert connection.is_lost()
    assert not connection.is_cut_off()
    assert session.closes == [(1007, "")]
    world.assert_empty()


def test_a_close_frame_waits_with_what_a_paused_peer_sent() -> None:
    """Data of a paused peer is processed in order: the messages before the close frame, then the end."""
    world = World()
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection, session = world.upgraded()
    connection.feed(frame(b"1"))
    assert not connection.is_read()
    for byte in frame(b"2") + close_frame(3000, b"bye"):
        connection.protocol.dataReceived(bytes((byte,)))
    world.pass_time(1.0)
    assert (session.received, session.closes, connection.take()) == ([(b"1", False)], [], b"")
    world.application.on_messages = lambda session, batch: None
    session.peer.resume()
    world.pass_time(SLOT_S)
    assert session.received == [(b"1", False), (b"2", False)]
    assert session.closes == [(3000, "bye")]
    assert_closing(connection, 1000)
    assert connection.has_ended()
    connection.settle()
    world.assert_empty()


def test_nothing_is_delivered_after_our_close() -> None:
    """Messages that cross our close frame are dropped, and the handshake still completes."""
    world = World()
    connection, session = world.upgraded()
    session.peer.close(4404)
    connection.feed(frame(b"crossing") + close_frame(4404))
    assert session.received == []
    assert session.closes == [(4404, "")]


def test_closing_twice_sends_one_close_frame() -> None:
    """The first close counts; sending, pinging and pausing afterwards do nothing."""
    world = World()
    connection, session = world.upgraded()
    session.peer.close(4404, "first")
    session.peer.close(4409, "second")
    session.peer.send([b"late"])
    session.peer.ping(lambda: None)
    session.peer.pause()
    assert connection.is_read()
    assert [close_of(found) for found in connection.frames()] == [(4404, "first")]


@pytest.mark.parametrize("early", [b"", frame(b"early")])
def test_a_session_may_be_closed_while_it_opens(early: bytes) -> None:
    """An application that closes a peer in `opened` is told the end once, and gets no message."""
    world = World()
    world.application.on_opened = lambda session: session.peer.close(4404, "no server with that id")
    connection = world.connect()
    connection.feed(request_head() + early)
    session = world.application.sessions[0]
    assert (session.received, session.closes) == ([], [(4404, "")])
    assert connection.take().endswith(b"no server with that id")
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    connection.settle()
    world.assert_empty()


def test_what_was_sent_before_is_delivered_before_the_close() -> None:
    """A close waits for the frames in the outbox, as long as the peer takes them in time."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    payloads = [BLOCK, b"a", b"b" * HIGH_WATER_BYTES, b"c"]
    session.peer.send(payloads)
    session.peer.close(4401, "token revoked")
    session.peer.send([b"late"])
    connection.transport.read()
    world.pass_time(1.0)
    connection.transport.read_all()
    *frames, last = connection.frames()
    assert [bytes(found.data) for found in frames] == payloads
    assert close_of(last) == (4401, "token revoked")
    connection.feed(close_frame(4401))
    connection.settle()
    assert session.closes == [(4401, "")]
    world.assert_empty()


def test_a_peer_that_never_answers_our_close_is_cut_off() -> None:
    """The time for the closing handshake is bounded, and other bytes do not extend it."""
    world = World()
    connection, session = world.upgraded()
    session.peer.close(4404)
    for _ in range(8):
        world.pass_time(0.5)
        connection.feed(frame(b"chatter") + frame(b"", PING))
    assert not connection.is_cut_off()
    world.pass_time(1.0 + 2 * SLOT_S)
    assert connection.is_cut_off()
    connection.settle()
    assert session.closes == [(4404, "")]
    assert session.received == []
    world.assert_empty()


def test_a_peer_that_closes_and_does_not_read_is_cut_off() -> None:
    """If the peer never takes the answer to its close frame, the transport is aborted in time."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK, b"waiting"])
    connection.feed(close_frame())
    assert session.closes == [(1000, "")]
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()


ENDED_AT_ONCE = {
    "close frame": (close_frame(1001), 1000),
    "close frame without a code": (close_frame(None), 1000),
    "close frame with an invalid code": (close_frame(1005), 1002),
    "close frame with one byte": (frame(b"\x03", CLOSE), 1002),
    "close frame with 126 bytes": (frame(bytes(126), CLOSE), 1002),
    "close frame with a reason that is no text": (close_frame(1000, b"\xff"), 1007),
    "fragmented close frame": (frame(b"\x03\xe8", CLOSE, fin=False), 1002),
    "unmasked": (frame(b"a", mask=None), 1002),
    "unmasked, with a reserved bit": (frame(b"a", rsv=4, mask=None), 1002),
    "unknown, fragmented and too long": (frame(bytes(126), 0xF, fin=False, rsv=7), 1002),
    "invalid text": (frame(b"\xff"), 1007),
    "invalid text in a frame that has just begun": (frame(b"\xff" + bytes(60_000))[:9], 1007),
    "too long": (header(1 << 40) + bytes(4), 1009),
    "too many fragments": (frame(b"", fin=False) + frame(b"", 0, fin=False) * LIMITS.fragments, 1008),
}
"""What the peer sends, and the code that it gets."""


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("name", ENDED_AT_ONCE)
def test_our_side_ends_right_behind_the_close_frame(name: str, stays: bool) -> None:
    """After a close frame or a failure our side ends at once, and the peer's end is waited for a second."""
    data, code = ENDED_AT_ONCE[name]
    world = World()
    connection, session = world.upgraded()
    connection.transport.peer_stays = stays
    connection.feed(data)
    world.clock.advance(0)  # A thousand fragments take more than one turn.
    assert [close_of(found)[0] for found in connection.frames()] == [code]
    assert connection.has_ended()
    assert len(session.closes) == 1
    connection.feed(frame(b"ghost") + frame(b"", PING) + close_frame() + frame(b"a", mask=None))
    assert (connection.take(), session.received, len(session.closes)) == (b"", [], 1)
    connection.settle()
    assert connection.is_lost() is not stays
    if stays:
        assert connection.is_read(), "unread bytes would reset the connection"
        world.pass_time(1.0)
        assert connection.is_closed()
        connection.settle()
    assert connection.is_lost()
    assert not connection.is_cut_off()
    world.assert_empty()


def raise_error(*_: object) -> None:
    """Fail, as an application might."""
    raise ValueError("failed")


FAILURES: dict[str, tuple[Ending, int]] = {
    "heartbeat": (lambda w, c, s: w.pass_time(60.0 + SLOT_S), 1011),
    "slow message": (slow_message, 1008),
    "an application that fails": (lambda w, c, s: c.feed(frame(b"fail")), 1011),
}


@pytest.mark.parametrize("name", FAILURES)
def test_our_side_ends_right_behind_a_failure_of_our_own(name: str) -> None:
    """RFC 6455 section 7.1.7: after failing a connection there is no wait for an answer to the close frame."""
    fail, code = FAILURES[name]
    world = World()
    connection, session = world.upgraded()
    world.application.on_messages = raise_error
    fail(world, connection, session)
    assert [close_of(found)[0] for found in connection.frames() if found.opcode is Opcode.CLOSE] == [code]
    assert [found for found, _ in session.closes] == [code]
    assert connection.has_ended()
    connection.settle()
    world.assert_empty()


def test_a_failure_while_the_close_waits() -> None:
    """The close frame of the session is sent before our side ends, and data before it is given up."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    world.application.on_closed = raise_error
    session.peer.send([BLOCK, b"waiting"])
    session.peer.close(4401, "token revoked")
    connection.feed(frame(b"\xff"))
    assert not connection.has_ended()
    connection.transport.read_all()
    assert [bytes(found.data[:2]) for found in connection.frames()] == [b"##", (1007).to_bytes(2, "big")]
    assert connection.has_ended()
    connection.settle()
    world.assert_empty()


def test_our_side_ends_once_a_slow_peer_has_taken_all() -> None:
    """The second for the peer's end begins when the close frame is sent."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    connection.transport.peer_stays = True
    session.peer.send([BLOCK, b"waiting"])
    connection.feed(frame(b"a", mask=None))
    world.pass_time(CLOSE_S - SLOT_S)
    connection.feed(b"more of it")
    assert not connection.has_ended()
    connection.transport.read_all()
    assert [found.opcode for found in connection.frames()] == [Opcode.TEXT, Opcode.CLOSE]
    assert connection.has_ended()
    assert not connection.is_closed()
    world.pass_time(1.0)
    assert connection.is_closed()
    assert not connection.is_cut_off()
    connection.settle()
    world.assert_empty()


def test_a_peer_that_is_gone_while_our_side_ends() -> None:
    """Nothing is called back for a connection that was lost before everything was written."""
    world = World()
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([BLOCK])
    connection.feed(close_frame())
    connection.transport.lose()
    assert session.closes == [(1000, "")]
    world.assert_empty()


def test_a_connection_that_does_not_end_when_it_is_closed_is_cut_off() -> None:
    """A connection that does not end after its close is aborted, as may be needed below TLS."""
    world = World()
    connection, _ = world.upgraded()
    connection.transport.peer_stays = True
    connection.feed(close_frame())
    world.pass_time(1.0)
    assert connection.is_closed()
    world.pass_time(CLOSE_S + SLOT_S)
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()


def test_shutdown_closes_every_connection_with_1001() -> None:
    """Peers that answer the shutdown end at once, and `abort` cuts off the others."""
    world = World()
    (quick, _), (slow, _) = world.upgraded(), world.upgraded(BOB)
    world.factory.shut_down()
    assert_closing(quick, 1001, SHUTTING_DOWN)
    assert_closing(slow, 1001, SHUTTING_DOWN)
    quick.feed(close_frame(1001))
    quick.settle()
    assert len(world.factory.open) == 1
    world.factory.abort()
    slow.settle()
    assert [session.closes for session in world.application.sessions] == [[(1001, "")]] * 2
    world.assert_empty()


def test_a_long_reason_is_cut_to_what_a_close_frame_holds() -> None:
    """RFC 6455 section 5.5: a control frame carries 125 bytes at most, and the reason stays UTF-8."""
    world = World()
    connection, session = world.upgraded()
    session.peer.close(4000, "ä" * 100)
    (found,) = connection.frames()
    code, reason = close_of(found)
    assert code == 4000
    assert reason
    assert set(reason) == {"ä"}


def test_what_the_layers_above_must_bring() -> None:
    """The lowest layer has no way to read, and no timer."""
    layer = Lifecycle()
    for call in (layer._update_reading, layer._arm, lambda: layer._look_again(0.0)):
        with pytest.raises(NotImplementedError):
            call()
