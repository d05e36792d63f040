"""Connections with expensive chunks take turns, and those with cheap ones do not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from tests.support.frames import close_frame, frame
from tests.support.harness import ALICE, BOB, Connection, FakeSession, World, assert_closing

from pyryrelay.protocol import Message
from pyryrelay.runtime.fair_queue import COSTLY_FOR_S, INTERACTIVE_S, LONG_TURN_S, SHORT_TURN_S
from pyryrelay.websocket.frames.reader import MANY_FRAMES
from pyryrelay.websocket.reading import turns
from pyryrelay.websocket.reading.hangup import AFTER_HANGUP_S
from pyryrelay.websocket.reading.turns import FIRST_FRAMES, LEAST_FRAMES

TINY = frame(b"1")
FRAME_S = 0.00001


class Turns(World):
    """A world whose reactor makes the calls of each turn, one turn at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.soon: list[Callable[[], None]] = []
        self.fair_queue._call_soon = self.soon.append


@pytest.fixture
def world() -> Turns:
    """A world in which each message takes a hundredth of a millisecond."""
    world = Turns()

    def work(session: FakeSession, batch: Sequence[Message]) -> None:
        world.work_clock.advance(FRAME_S * len(batch))

    world.application.on_messages = work
    return world


def turn(world: Turns) -> None:
    """Run the reactor's next turn."""
    world.fair_queue.begin_turn()
    calls, world.soon[:] = world.soon[:], []
    for call in calls:
        call()


def opened(world: Turns, host: str = ALICE) -> tuple[Connection, FakeSession]:
    """Return one upgraded connection."""
    connection, session = world.upgraded(host)
    connection.take()
    return connection, session


def expensive(world: Turns, host: str = ALICE) -> tuple[Connection, FakeSession]:
    """Return a connection with expensive chunks, at the beginning of a turn of which its address has used nothing."""
    connection, session = opened(world, host)
    connection.feed(TINY * 100)
    turn(world)
    return connection, session


def be_active(world: Turns) -> None:
    """Let a cheap peer be active, so that turns are short."""
    share, now_s = world.fair_queue.join("another address"), world.work_clock.seconds()
    world.fair_queue.charge(share, now_s, now_s, False)
    world.fair_queue.leave(share)


def test_the_second_costly_chunk_of_a_turn_waits_for_the_next_one(world: Turns) -> None:
    """Its sender is not read from meanwhile, and nothing is lost."""
    (first, one), (second, two) = expensive(world), expensive(world, BOB)
    be_active(world)
    first.feed(TINY * 30)
    second.feed(TINY * 30)
    assert (len(one.received), len(two.received)) == (130, 100)
    assert (first.is_read(), second.is_read()) == (True, False)
    turn(world)
    assert len(two.received) == 130
    assert second.is_read()


def test_cheap_peers_do_not_wait_for_costly_ones(world: Turns) -> None:
    """Cheap chunks are processed as they are read, even at the address of expensive peers."""
    connection, session = opened(world)
    noisy, _ = expensive(world)
    noisy.feed(TINY * 100)
    noisy.feed(TINY * 100)
    assert not noisy.is_read()
    turn(world)
    connection.feed(TINY * 5)
    assert len(session.received) == 5


def test_a_costly_peer_that_turns_cheap_is_treated_so_after_a_while(world: Turns) -> None:
    """An expensive peer counts as cheap only after several cheap chunks."""
    (patient, session), (noisy, _) = expensive(world), expensive(world, BOB)
    be_active(world)
    for waited_s, got in ((0.0, 100), (1.01 * COSTLY_FOR_S, 102)):
        world.work_clock.advance(waited_s)
        be_active(world)
        noisy.feed(TINY * 30)
        noisy.feed(TINY * 30)
        assert not noisy.is_read()
        patient.feed(TINY)
        assert len(session.received) == got
        for _ in range(4):
            turn(world)


@pytest.mark.parametrize(("frame_s", "most"), [(0.0, MANY_FRAMES), (1e-6, 250), (2.5e-6, 100), (1.0, LEAST_FRAMES)])
def test_as_many_frames_are_taken_in_a_turn_as_there_is_time_for(world: Turns, frame_s: float, most: int) -> None:
    """The number of frames in a turn follows from their cost before, and is a few hundred at first."""
    world.application.on_messages = lambda session, batch: world.work_clock.advance(frame_s * len(batch))
    connection, session = opened(world)
    connection.feed(TINY * (FIRST_FRAMES + 3 * MANY_FRAMES))
    assert FIRST_FRAMES <= len(session.received) <= FIRST_FRAMES + 1
    (protocol,) = (found for found in world.factory.open if found.client.key == protocol_key(session))
    be_active(world)
    protocol._limit_frames(world.work_clock.seconds())
    assert protocol._reader.most_frames == pytest.approx(most, abs=1)


def protocol_key(session: FakeSession) -> object:
    """Return the key of the connection's client."""
    return session.request.client.key


def test_a_long_chunk_shares_turns_with_others(world: Turns) -> None:
    """A turn takes a bounded number of frames of a long chunk, and another peer's chunk is processed in between."""
    (noisy, session), (other, answered) = expensive(world), expensive(world, BOB)
    be_active(world)
    noisy.feed(TINY * 30)
    noisy.feed(TINY * 1000)
    other.feed(TINY)
    taken = []
    while len(session.received) < 1130:
        turn(world)
        taken.append(len(session.received))
        assert taken[-1] - (taken[-2] if len(taken) > 1 else 130) <= SHORT_TURN_S / FRAME_S + LEAST_FRAMES + 1
        be_active(world)
    assert len(answered.received) == 101
    assert noisy.is_read()


def test_a_closing_peer_takes_turns_too(world: Turns) -> None:
    """A peer that floods while it is being closed takes turns, its close frame is found, and it is cut off in time."""
    (noisy, session), (other, _) = expensive(world), expensive(world, BOB)
    session.peer.close(4000, "enough")
    be_active(world)
    other.feed(TINY * 30)
    noisy.feed(TINY * 100 + close_frame(4000))
    assert not noisy.is_read()
    assert not session.closes
    turn(world)
    assert_closing(noisy, 4000, "enough")
    assert session.closes == [(4000, "")]


def test_a_peer_that_is_lost_while_it_waits_is_over(world: Turns) -> None:
    """Data of a lost peer that waits for its turn is not delivered."""
    (noisy, session), (other, _) = expensive(world), expensive(world, BOB)
    be_active(world)
    other.feed(TINY * 30)
    noisy.feed(TINY)
    noisy.transport.lose()
    turn(world)
    assert len(session.received) == 100
    assert [code for code, _ in session.closes] == [1006]


def test_a_peer_that_is_paused_while_it_waits_stays_so(world: Turns) -> None:
    """A peer that is paused while it waits gets its turn when it is resumed."""
    (noisy, session), (other, _) = expensive(world), expensive(world, BOB)
    be_active(world)
    other.feed(TINY * 30)
    noisy.feed(TINY)
    session.peer.pause()
    turn(world)
    assert (len(session.received), noisy.is_read()) == (100, False)
    session.peer.resume()
    assert (len(session.received), noisy.is_read()) == (101, True)


def test_turns_without_cheap_peers(world: Turns) -> None:
    """Without cheap peers a turn may take longer."""
    (first, one), (second, two) = expensive(world), expensive(world, BOB)
    world.work_clock.advance(1.01 * INTERACTIVE_S)
    first.feed(TINY * 30)
    second.feed(TINY * 30)
    assert (len(one.received), len(two.received)) == (130, 130)
    first.feed(TINY * int(LONG_TURN_S / FRAME_S))
    second.feed(TINY)
    assert not second.is_read()


def test_no_share_is_left(world: Turns) -> None:
    """Without connections no share is left."""
    connections = [expensive(world, host)[0] for host in (ALICE, ALICE, BOB)]
    for connection in connections:
        connection.transport.lose()
    world.assert_empty()


def test_a_peer_that_is_failed_while_it_waits_is_read_to_its_end(world: Turns) -> None:
    """Data that is only discarded needs no turn; a reset for unread bytes would destroy our close frame."""
    (noisy, session), (other, _) = expensive(world), expensive(world, BOB)
    be_active(world)
    other.feed(TINY * 30)
    noisy.feed(TINY * 30)
    assert not noisy.is_read()
    (protocol,) = (found for found in world.factory.open if found.client.key == protocol_key(session))
    protocol._fail(1011, "enough")
    assert noisy.is_read()
    turn(world)
    assert len(session.received) == 100
    assert_closing(noisy, 1011, "enough")


# Peers that are gone


def flooding(world: Turns, frames: int) -> tuple[Connection, FakeSession]:
    """Return a peer whose next chunk of frames waits for its turn."""
    (noisy, session), (other, _) = expensive(world), expensive(world, BOB)
    be_active(world)
    other.feed(TINY * 30)
    noisy.feed(TINY * frames)
    assert not noisy.is_read()
    return noisy, session


def test_expensive_data_of_a_peer_that_has_hung_up_is_dropped(world: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expensive data of a peer that has hung up is processed in part, then the connection is cut off."""
    noisy, session = flooding(world, 5000)
    monkeypatch.setattr(turns, "has_hung_up", lambda transport: transport is noisy.transport)
    for _ in range(1000):
        turn(world)
        be_active(world)
    assert noisy.is_cut_off()
    work_s = FRAME_S * (len(session.received) - 100)
    assert AFTER_HANGUP_S < work_s < 2 * AFTER_HANGUP_S
    noisy.settle()
    assert [code for code, _ in session.closes] == [1006]


def test_cheap_data_of_a_peer_that_has_hung_up_is_delivered(world: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cheap data of a peer that has hung up is delivered in full, however many turns that takes."""
    noisy, session = flooding(world, 5000)
    world.application.on_messages = lambda session, batch: world.work_clock.advance(len(batch) * FRAME_S / 100)
    monkeypatch.setattr(turns, "has_hung_up", lambda transport: True)
    for _ in range(1000):
        turn(world)
        be_active(world)
    assert len(session.received) == 5100
    assert not noisy.is_cut_off()


def test_an_expensive_peer_gets_pongs(world: Turns) -> None:
    """An expensive peer gets unsolicited pongs, which need no answer, and a cheap one gets none."""
    noisy, _ = flooding(world, 2000)
    for _ in range(100):
        turn(world)
        be_active(world)
    assert [(found.opcode.name, bytes(found.data)) for found in noisy.frames()] == [("PONG", b"")]


def test_a_peer_that_is_closing_is_sent_no_pongs(world: Turns) -> None:
    """After a close frame no pong is sent."""
    noisy, session = flooding(world, 2000)
    session.peer.close(4000)
    for _ in range(100):
        turn(world)
        be_active(world)
        world.work_clock.advance(1)
    assert [found.opcode.name for found in noisy.frames()] == ["CLOSE"]


def test_lost_in_turn(world: Turns) -> None:
    """A connection that is lost while a chunk waits for its turn arms no timer any more."""
    connection, _ = expensive(world)
    be_active(world)
    connection.feed(TINY * 100)
    connection.feed(TINY * 100)
    (peer,) = world.factory.open
    assert not connection.is_read()
    connection.transport.lose()
    peer.pause()
    peer.resume()
    turn(world)
    assert len(world.wheel) == 0
    assert len(world.fair_queue) == 0
