"""Connections whose chunks are costly take turns, and those whose are cheap do not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from tests.support.frames import close_frame, frame
from tests.support.harness import ALICE, BOB, Connection, FakeSession, World, assert_closing

from pyryrelay.protocol import Message
from pyryrelay.runtime.fair_queue import COSTLY_FOR_S, INTERACTIVE_S, LONG_TURN_S, SHORT_TURN_S
from pyryrelay.websocket import receiving
from pyryrelay.websocket.frames.reader import MANY_FRAMES
from pyryrelay.websocket.reading.hangup import REST_S
from pyryrelay.websocket.receiving import FIRST_FRAMES, LEAST_FRAMES

TINY = frame(b"1")
FRAME_S = 0.00001


class Turns(World):
    """One whose reactor does what is to be done soon in turns, one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.soon: list[Callable[[], None]] = []
        self.fair_queue._call_soon = self.soon.append


@pytest.fixture
def world() -> Turns:
    """Each message takes a hundredth of a millisecond."""
    world = Turns()

    def work(session: FakeSession, batch: Sequence[Message]) -> None:
        world.work_clock.advance(FRAME_S * len(batch))

    world.application.on_messages = work
    return world


def turn(world: Turns) -> None:
    """The reactor's next turn."""
    world.fair_queue.begin_turn()
    calls, world.soon[:] = world.soon[:], []
    for call in calls:
        call()


def opened(world: Turns, host: str = ALICE) -> tuple[Connection, FakeSession]:
    """One connection, which is upgraded."""
    connection, session = world.upgraded(host)
    connection.take()
    return connection, session


def costly(world: Turns, host: str = ALICE) -> tuple[Connection, FakeSession]:
    """One that has shown how costly its chunks are; the turn is over, and its address has used none of the next one."""
    connection, session = opened(world, host)
    connection.feed(TINY * 100)
    turn(world)
    return connection, session


def chat(world: Turns) -> None:
    """Somebody cheap is there: turns are short."""
    share, now_s = world.fair_queue.join("somebody"), world.work_clock.seconds()
    world.fair_queue.charge(share, now_s, now_s, False)
    world.fair_queue.leave(share)


def test_the_second_costly_chunk_of_a_turn_waits_for_the_next_one(world: Turns) -> None:
    """Its sender is not read from meanwhile; nothing is lost."""
    (first, one), (second, two) = costly(world), costly(world, BOB)
    chat(world)
    first.feed(TINY * 30)
    second.feed(TINY * 30)
    assert (len(one.received), len(two.received)) == (130, 100)
    assert (first.is_read(), second.is_read()) == (True, False)
    turn(world)
    assert len(two.received) == 130
    assert second.is_read()


def test_cheap_peers_do_not_wait_for_costly_ones(world: Turns) -> None:
    """Their chunks are processed as they are read, also at the address of those who wait."""
    connection, session = opened(world)
    noisy, _ = costly(world)
    noisy.feed(TINY * 100)
    noisy.feed(TINY * 100)
    assert not noisy.is_read()
    turn(world)
    connection.feed(TINY * 5)
    assert len(session.received) == 5


def test_a_costly_peer_that_turns_cheap_is_treated_so_after_a_while(world: Turns) -> None:
    """Not sooner: an expensive chunk after a cheap one would have a turn of its own every other time."""
    (patient, session), (noisy, _) = costly(world), costly(world, BOB)
    chat(world)
    for waited_s, got in ((0.0, 100), (1.01 * COSTLY_FOR_S, 102)):
        world.work_clock.advance(waited_s)
        chat(world)
        noisy.feed(TINY * 30)
        noisy.feed(TINY * 30)
        assert not noisy.is_read()
        patient.feed(TINY)
        assert len(session.received) == got
        for _ in range(4):
            turn(world)


@pytest.mark.parametrize(("frame_s", "most"), [(0.0, MANY_FRAMES), (1e-6, 250), (2.5e-6, 100), (1.0, LEAST_FRAMES)])
def test_as_many_frames_are_taken_in_a_turn_as_there_is_time_for(world: Turns, frame_s: float, most: int) -> None:
    """By what they cost before; where that is not known, a few hundred."""
    world.application.on_messages = lambda session, batch: world.work_clock.advance(frame_s * len(batch))
    connection, session = opened(world)
    connection.feed(TINY * (FIRST_FRAMES + 3 * MANY_FRAMES))
    assert FIRST_FRAMES <= len(session.received) <= FIRST_FRAMES + 1
    (protocol,) = (found for found in world.factory.open if found.client.key == protocol_key(session))
    chat(world)
    protocol._limit_frames(world.work_clock.seconds())
    assert protocol._reader.most_frames == pytest.approx(most, abs=1)


def protocol_key(session: FakeSession) -> object:
    """What the connection's client is counted under."""
    return session.request.client.key


def test_a_long_chunk_shares_turns_with_others(world: Turns) -> None:
    """One turn takes a bounded number of frames of it, and somebody else's chunk is processed in between."""
    (noisy, session), (other, answered) = costly(world), costly(world, BOB)
    chat(world)
    noisy.feed(TINY * 30)
    noisy.feed(TINY * 1000)
    other.feed(TINY)
    taken = []
    while len(session.received) < 1130:
        turn(world)
        taken.append(len(session.received))
        assert taken[-1] - (taken[-2] if len(taken) > 1 else 130) <= SHORT_TURN_S / FRAME_S + LEAST_FRAMES + 1
        chat(world)
    assert len(answered.received) == 101
    assert noisy.is_read()


def test_a_closing_peer_takes_turns_too(world: Turns) -> None:
    """It may flood while it is being closed; its close frame is found in its turn, and it is cut off in time."""
    (noisy, session), (other, _) = costly(world), costly(world, BOB)
    session.peer.close(4000, "enough")
    chat(world)
    other.feed(TINY * 30)
    noisy.feed(TINY * 100 + close_frame(4000))
    assert not noisy.is_read()
    assert not session.closes
    turn(world)
    assert_closing(noisy, 4000, "enough")
    assert session.closes == [(4000, "")]


def test_a_peer_that_is_lost_while_it_waits_is_over(world: Turns) -> None:
    """Nothing of what waited is delivered."""
    (noisy, session), (other, _) = costly(world), costly(world, BOB)
    chat(world)
    other.feed(TINY * 30)
    noisy.feed(TINY)
    noisy.transport.lose()
    turn(world)
    assert len(session.received) == 100
    assert [code for code, _ in session.closes] == [1006]


def test_a_peer_that_is_paused_while_it_waits_stays_so(world: Turns) -> None:
    """Its turn comes when it is resumed."""
    (noisy, session), (other, _) = costly(world), costly(world, BOB)
    chat(world)
    other.feed(TINY * 30)
    noisy.feed(TINY)
    session.peer.pause()
    turn(world)
    assert (len(session.received), noisy.is_read()) == (100, False)
    session.peer.resume()
    assert (len(session.received), noisy.is_read()) == (101, True)


def test_nobody_cheap_is_there(world: Turns) -> None:
    """Then a turn takes longer, because it costs nobody anything."""
    (first, one), (second, two) = costly(world), costly(world, BOB)
    world.work_clock.advance(1.01 * INTERACTIVE_S)
    first.feed(TINY * 30)
    second.feed(TINY * 30)
    assert (len(one.received), len(two.received)) == (130, 130)
    first.feed(TINY * int(LONG_TURN_S / FRAME_S))
    second.feed(TINY)
    assert not second.is_read()


def test_everybody_leaves(world: Turns) -> None:
    """No share is left behind."""
    connections = [costly(world, host)[0] for host in (ALICE, ALICE, BOB)]
    for connection in connections:
        connection.transport.lose()
    world.assert_empty()


def test_a_peer_that_is_failed_while_it_waits_is_read_to_its_end(world: Turns) -> None:
    """What is only discarded needs no turn; a reset because of unread bytes would destroy our close frame."""
    (noisy, session), (other, _) = costly(world), costly(world, BOB)
    chat(world)
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
    """A peer whose next chunk of frames waits for its turn."""
    (noisy, session), (other, _) = costly(world), costly(world, BOB)
    chat(world)
    other.feed(TINY * 30)
    noisy.feed(TINY * frames)
    assert not noisy.is_read()
    return noisy, session


def test_what_is_dear_of_a_peer_that_has_hung_up_is_dropped(world: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of it is processed, as it may be somebody's last words, and then the connection is cut off."""
    noisy, session = flooding(world, 5000)
    monkeypatch.setattr(receiving, "has_hung_up", lambda transport: transport is noisy.transport)
    for _ in range(1000):
        turn(world)
        chat(world)
    assert noisy.is_cut_off()
    work_s = FRAME_S * (len(session.received) - 100)
    assert REST_S < work_s < 2 * REST_S
    noisy.settle()
    assert [code for code, _ in session.closes] == [1006]


def test_what_is_cheap_of_a_peer_that_has_hung_up_is_delivered(world: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, however many turns that takes."""
    noisy, session = flooding(world, 5000)
    world.application.on_messages = lambda session, batch: world.work_clock.advance(len(batch) * FRAME_S / 100)
    monkeypatch.setattr(receiving, "has_hung_up", lambda transport: True)
    for _ in range(1000):
        turn(world)
        chat(world)
    assert len(session.received) == 5100
    assert not noisy.is_cut_off()


def test_a_peer_whose_frames_are_dear_is_sent_pongs(world: Turns) -> None:
    """Nobody has to answer them, and nobody whose frames are cheap is sent any."""
    noisy, _ = flooding(world, 2000)
    for _ in range(100):
        turn(world)
        chat(world)
    assert [(found.opcode.name, bytes(found.data)) for found in noisy.frames()] == [("PONG", b"")]


def test_a_peer_that_is_closing_is_sent_no_pongs(world: Turns) -> None:
    """Nothing comes behind a close frame."""
    noisy, session = flooding(world, 2000)
    session.peer.close(4000)
    for _ in range(100):
        turn(world)
        chat(world)
        world.work_clock.advance(1)
    assert [found.opcode.name for found in noisy.frames()] == ["CLOSE"]
