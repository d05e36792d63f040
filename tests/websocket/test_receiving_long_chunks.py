"""Long chunks: processed at once if that is cheap, and else in several turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from tests.support.frames import PING, close_frame, frame
from tests.support.harness import Connection, FakeSession, LogReader, World, assert_closing

from pyryrelay.guard import Quota, ThrottlePolicy
from pyryrelay.protocol import Message
from pyryrelay.runtime.fair_queue import Share
from pyryrelay.websocket.reading.read_size import WIDE_READ_BYTES
from pyryrelay.websocket.reading.turns import FIRST_FRAMES

LARGE = [frame(b"%d" % number + b"x" * 4000) for number in range(WIDE_READ_BYTES // 4100)]
TINY = frame(b"1")
DENSE = TINY * (WIDE_READ_BYTES // len(TINY))


@pytest.fixture
def world() -> World:
    """A world without connections."""
    return World()


def opened(world: World) -> tuple[Connection, FakeSession]:
    """Return one upgraded connection."""
    connection, session = world.upgraded()
    connection.take()
    return connection, session


def test_a_long_chunk_of_large_messages_is_one_batch(world: World) -> None:
    """A long chunk of large messages is one batch, so that each sink is written once."""
    connection, session = opened(world)
    connection.feed(b"".join(LARGE))
    assert [len(batch) for batch in session.batches] == [len(LARGE)]
    assert [payload[:4].rstrip(b"x") for payload, _ in session.received] == [b"%d" % n for n in range(len(LARGE))]


@pytest.mark.parametrize("piece", [TINY, frame(b"", PING)])
def test_a_long_chunk_of_tiny_frames_takes_several_turns(
    world: World, monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    """Each turn takes a bounded number of tiny frames, and the rest is neither lost nor overtaken."""
    connection, session = opened(world)
    sent = WIDE_READ_BYTES // len(piece)

    def taken() -> int:
        return len(session.received) if piece == TINY else len(connection.frames())

    turns: list[float] = []
    call_later = world.clock.callLater

    def counted(delay_s: float, call: Callable[[], None]) -> object:
        turns.append(delay_s)
        return call_later(delay_s, call)

    monkeypatch.setattr(world.clock, "callLater", counted)
    connection.feed(piece * sent)
    total = taken()
    assert FIRST_FRAMES <= total <= FIRST_FRAMES + 1
    world.clock.advance(0)
    assert (taken() if piece == TINY else total + taken()) == sent
    assert connection.transport.reading
    connection.feed(TINY)
    assert session.received[-1] == (b"1", False)
    connection.transport.lose()
    world.assert_empty()


def test_a_peer_that_does_not_keep_up_ends_wide_reading(world: World) -> None:
    """A peer that fills its outbox ends wide reads."""
    wide_slot = world.factory.context.wide_slot
    _, session = world.upgraded(peer_reads=False)
    (protocol,) = world.factory.open
    wide_slot.holder = protocol._read_size
    session.peer.send([b"x" * 10_000])
    assert wide_slot.holder is protocol._read_size
    session.peer.send([b"x" * 100_000])
    assert wide_slot.holder is None


def test_a_peer_that_is_paused_meanwhile_stays_so(world: World) -> None:
    """The rest of a paused peer's chunk is processed when it is resumed."""
    connection, session = opened(world)
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection.feed(DENSE)
    before = len(session.received)
    world.clock.advance(1)
    assert len(session.received) == before
    world.application.on_messages = lambda session, batch: None
    session.peer.resume()
    for _ in range(4):
        world.clock.advance(0)
    assert len(session.received) == len(DENSE) // len(TINY)
    assert connection.transport.reading


def test_an_application_is_not_entered_again_while_it_takes_messages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pausing and resuming inside `messages` neither delivers later messages nor queues the peer twice."""
    connection, session = opened(world)
    seen: list[bytes] = []
    waits: list[object] = []
    enqueue = world.fair_queue.enqueue

    def counted(share: Share, job: Callable[[], None]) -> None:
        waits.append(job)
        enqueue(share, job)

    def bounce(session: FakeSession, batch: Sequence[Message]) -> None:
        session.peer.pause()
        session.peer.resume()
        seen.extend(payload for payload, _ in batch)

    monkeypatch.setattr(world.fair_queue, "enqueue", counted)
    world.application.on_messages = bounce
    sent = [b"%d" % number for number in range(3 * FIRST_FRAMES)]
    connection.feed(b"".join(map(frame, sent)))
    assert len(session.batches) == 1
    assert len(waits) == 1
    for _ in range(4):
        world.clock.advance(0)
    assert seen == sent
    assert connection.transport.reading


def test_a_close_frame_in_the_rest_answers_ours(world: World) -> None:
    """A close frame in the rest of a chunk completes the closing handshake."""
    connection, session = opened(world)

    world.application.on_messages = lambda session, batch: session.peer.close(4000, "enough")
    connection.feed(DENSE[: -len(close_frame(4000))] + close_frame(4000))
    assert_closing(connection, 4000, "enough")
    for _ in range(4):
        world.clock.advance(0)
    assert session.closes == [(4000, "")]


def test_a_close_frame_in_the_rest_of_a_paused_peer_waits_for_its_turn(world: World) -> None:
    """A close frame counts after the messages before it were delivered."""
    connection, session = opened(world)
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection.feed(DENSE + close_frame(4000))
    before = len(session.received)
    for _ in range(4):
        world.clock.advance(1)
    assert (len(session.received), session.closes, connection.frames()) == (before, [], [])
    world.application.on_messages = lambda session, batch: None
    session.peer.resume()
    for _ in range(4):
        world.clock.advance(0)
    assert len(session.received) == len(DENSE) // len(TINY)
    assert session.closes == [(4000, "")]
    connection.settle()
    world.assert_empty()


def test_a_close_frame_in_the_rest_of_a_paused_peer_answers_ours(world: World) -> None:
    """A close frame in the rest of a paused peer's chunk completes the handshake when we close."""
    connection, session = opened(world)
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection.feed(DENSE + close_frame(4000))
    session.peer.close(4000, "enough")
    assert_closing(connection, 4000, "enough")
    for _ in range(4):
        world.clock.advance(0)
    assert session.closes == [(4000, "")]
    connection.settle()
    assert not connection.is_cut_off()
    world.assert_empty()


def test_a_connection_that_is_lost_meanwhile_is_over(world: World) -> None:
    """The rest of a lost peer's chunk is not delivered."""
    connection, session = opened(world)
    connection.feed(DENSE)
    before = len(session.received)
    connection.transport.lose()
    world.clock.advance(0)
    assert len(session.received) == before
    world.assert_empty()


def test_a_chunk_that_takes_turns_is_charged_whole() -> None:
    """A chunk costs the same however many turns it takes."""
    quota = Quota.parse("1000000/hour")
    world = World(throttle=ThrottlePolicy(frames=quota))
    connection, session = opened(world)
    connection.feed(DENSE)
    for _ in range(4):
        world.clock.advance(0)
    assert len(session.received) == len(DENSE) // len(TINY)
    assert connection.transport.reading


def test_a_fault_in_a_later_turn_costs_its_connection_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in a later turn is logged with its traceback, and cuts off this connection only."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    connection, _ = opened(world)
    other, heard = opened(world)
    connection.feed(DENSE)
    (protocol,) = (protocol for protocol in world.factory.open if protocol._read_pause.put_off)
    monkeypatch.setattr(protocol, "_process", fail)
    with LogReader() as log:
        world.clock.advance(0)
    assert log.failures == ["A connection failed in its turn"]
    assert connection.is_cut_off()
    other.feed(TINY)
    assert [payload for payload, _ in heard.received] == [b"1"]
