"""Sessions that take messages later: their `messages` returns a Deferred, and nothing more comes until it fires."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.frames import PING, TEXT, close_frame, close_of, frame
from tests.support.harness import BOB, Connection, FakeSession, LogReader, World, answer_pings, assert_closing
from tests.support.transports import HIGH_WATER_BYTES
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from websockets.frames import Opcode

from pyryrelay.guard import Quota, ThrottlePolicy
from pyryrelay.protocol import Message, PeerPolicy
from pyryrelay.runtime.timer_wheel import SLOT_S
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.reading.turns import FIRST_FRAMES

CLOSE_S = WebSocketLimits().close_timeout_s
LATE_S = 2 * SLOT_S


class Storage:
    """Takes the batches of all sessions of a world when the test says so."""

    def __init__(self, world: World) -> None:
        self.waiting: list[Deferred[None]] = []
        world.application.on_messages = self.take

    def take(self, session: FakeSession, batch: Sequence[Message]) -> Deferred[None]:
        """Let it wait."""
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def done(self) -> None:
        """The first batch that waits is taken."""
        self.waiting.pop(0).callback(None)

    def fail(self) -> None:
        """The first batch that waits cannot be taken."""
        self.waiting.pop(0).errback(RuntimeError("secret"))


def send(connection: Connection, data: bytes) -> None:
    """Deliver bytes whether they are wanted or not, as a transport does that had read them already."""
    connection.protocol.dataReceived(data)


# When it fires


@pytest.mark.parametrize("result", [None, "anything"])
def test_a_batch_that_is_taken_at_once_stops_nothing(result: Any) -> None:
    """A Deferred that has fired is the same as none."""
    world = World()
    world.application.on_messages = lambda session, batch: succeed(result)
    connection, session = world.upgraded()
    stops: list[None] = []
    connection.transport.pauseProducing = lambda: stops.append(None)  # type: ignore[method-assign]
    connection.feed(frame(b"a") + frame(b"b"))
    connection.feed(frame(b"c"))
    assert session.batches == [[(b"a", False), (b"b", False)], [(b"c", False)]]
    assert stops == []


def test_nothing_is_read_until_a_batch_is_taken() -> None:
    """The peer is not read from, and goes on when the Deferred fires."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    connection.feed(frame(b"a") + frame(b"b"))
    assert not connection.is_read()
    assert session.received == [(b"a", False), (b"b", False)]
    storage.done()
    assert connection.is_read()
    connection.feed(frame(b"c"))
    assert session.received[-1] == (b"c", False)


def test_what_was_read_nevertheless_waits() -> None:
    """Bytes that the transport had read already are delivered in order, in one batch, when the last one is taken."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    connection.feed(frame(b"1"))
    for piece in (frame(b"2"), frame(b"3")[:4], frame(b"3")[4:]):
        send(connection, piece)
    assert session.batches == [[(b"1", False)]]
    storage.done()
    assert session.batches == [[(b"1", False)], [(b"2", False), (b"3", False)]]
    assert not connection.is_read()
    storage.done()
    assert connection.is_read()


def test_the_kernel_keeps_what_is_not_read() -> None:
    """Many chunks that wait in the kernel are read one at a time, each when the last one was taken."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    chunks = [frame(b"%d" % number) for number in range(50)]
    read = 0
    while read < len(chunks):
        assert connection.is_read()
        connection.feed(chunks[read])
        read += 1
        assert not connection.is_read()
        assert len(session.batches) == read
        storage.done()
    assert session.received == [(b"%d" % number, False) for number in range(50)]


def test_a_batch_may_be_taken_while_it_is_handed_over() -> None:
    """A Deferred that fires inside `messages` stops nothing, however many callbacks it has."""
    world = World()
    taken: list[Deferred[None]] = []

    def take(session: FakeSession, batch: Sequence[Message]) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        taken.append(waiting)
        waiting.addCallback(lambda _: session.peer.send([b"OK"]))
        waiting.callback(None)
        return waiting

    world.application.on_messages = take
    connection, _ = world.upgraded()
    connection.feed(frame(b"a"))
    connection.feed(frame(b"b"))
    assert (connection.payloads(), connection.is_read(), len(taken)) == ([b"OK", b"OK"], True, 2)


def test_a_deferred_that_waits_for_another_has_not_fired() -> None:
    """A Deferred that was called, and whose result is one that has not fired, is waited for."""
    world = World()
    inner: Deferred[None] = Deferred()
    world.application.on_messages = lambda session, batch: succeed(None).addCallback(lambda _: inner)
    connection, _ = world.upgraded()
    connection.feed(frame(b"a"))
    assert not connection.is_read()
    inner.callback(None)
    assert connection.is_read()


def test_a_deferred_that_is_paused_has_not_fired() -> None:
    """A Deferred that its owner has paused is waited for until it runs its callbacks."""
    world = World()
    paused: Deferred[None] = Deferred()
    paused.pause()
    paused.callback(None)
    world.application.on_messages = lambda session, batch: paused
    connection, _ = world.upgraded()
    connection.feed(frame(b"a"))
    assert not connection.is_read()
    paused.unpause()
    assert connection.is_read()


def test_peers_wait_for_themselves_alone() -> None:
    """Others are read from, whatever one session waits for."""
    world = World()
    storage = Storage(world)
    (first, _), (second, session) = world.upgraded(), world.upgraded(BOB)
    first.feed(frame(b"a"))
    assert (first.is_read(), second.is_read()) == (False, True)
    second.feed(frame(b"b"))
    assert session.received == [(b"b", False)]
    storage.done()
    assert (first.is_read(), second.is_read()) == (True, False)


def test_a_long_chunk_waits_too() -> None:
    """More frames than one turn takes are not delivered before the first of them are taken, whatever turn it is."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    connection.feed(frame(b"1") * (3 * FIRST_FRAMES))
    world.pass_time(1.0)
    assert len(session.batches) == 1
    delivered = 0
    while storage.waiting:
        delivered += len(session.batches[-1])
        storage.done()
        world.pass_time(0.5)
    assert delivered == len(session.received) == 3 * FIRST_FRAMES
    assert len(session.batches) >= 2
    assert connection.is_read()


# What comes behind


STOPS = {
    "close frame": (close_frame(4001, b"bye"), (4001, "bye"), 1000),
    "invalid text": (frame(b"\xff"), (1007, ""), 1007),
    "bad header": (frame(b"a", mask=None), (1002, ""), 1002),
}


@pytest.mark.parametrize("is_one_chunk", [True, False])
@pytest.mark.parametrize("name", STOPS)
def test_the_end_waits_behind_messages(name: str, is_one_chunk: bool) -> None:
    """A close frame or a breach is acted upon when the messages before it are taken, wherever the network has cut."""
    data, told, code = STOPS[name]
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    if is_one_chunk:
        send(connection, frame(b"last words") + data + frame(b"ghost"))
    else:
        send(connection, frame(b"last words"))
        send(connection, data + frame(b"ghost"))
    assert (session.received, session.closes, connection.frames()) == ([(b"last words", False)], [], [])
    storage.waiting[0].addCallback(lambda _: session.peer.send([b"OK"]))
    session.peer.send([b"soon"])
    storage.done()
    sent = connection.frames()
    assert [bytes(found.data) for found in sent if found.opcode is Opcode.TEXT] == [b"soon"]
    assert close_of(sent[-1])[0] == code
    assert session.closes == [told]
    assert connection.has_ended()
    connection.settle()
    world.assert_empty()


def test_what_is_sent_when_a_batch_is_taken_precedes_the_end() -> None:
    """An application that answers as soon as it has stored a message is heard, although the peer has closed by then."""
    world = World()
    waiting: Deferred[None] = Deferred()
    connection, session = world.upgraded()
    waiting.addCallback(lambda _: session.peer.send([b"OK"]))
    world.application.on_messages = lambda session, batch: waiting
    send(connection, frame(b"event") + close_frame(1000))
    waiting.callback(None)
    answer, last = connection.frames()
    assert (bytes(answer.data), close_of(last)[0]) == (b"OK", 1000)
    assert session.closes == [(1000, "")]


@pytest.mark.parametrize("name", STOPS)
def test_a_session_that_closes_does_not_wait(name: str) -> None:
    """If the application closes the peer meanwhile, what waits is acted upon at once."""
    data, _, _ = STOPS[name]
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    send(connection, frame(b"last words") + data)
    session.peer.close(4404, "no")
    assert len(session.closes) == 1
    assert connection.has_ended()
    storage.done()
    connection.settle()
    assert len(session.closes) == 1
    world.assert_empty()


@pytest.mark.parametrize("name", STOPS)
def test_a_session_that_closes_in_the_call_does_not_wait(name: str) -> None:
    """If `messages` closes the peer and returns a Deferred all the same, the peer is told that close."""
    data, _, _ = STOPS[name]
    world = World()
    waiting: Deferred[None] = Deferred()

    def take(session: FakeSession, batch: Sequence[Message]) -> Deferred[None]:
        session.peer.close(4404, "no")
        return waiting

    world.application.on_messages = take
    connection, session = world.upgraded()
    send(connection, frame(b"last words") + data)
    assert_closing(connection, 4404, "no")
    assert session.closes == [(4404, "")]
    assert connection.is_read()
    waiting.callback(None)
    send(connection, close_frame(4404))
    world.pass_time(CLOSE_S + LATE_S)
    connection.settle()
    assert len(session.closes) == 1
    world.assert_empty()


def test_pings_are_answered_with_the_chunk() -> None:
    """Control frames of a chunk whose messages wait are answered: only what comes later is not read."""
    world = World()
    storage = Storage(world)
    connection, _ = world.upgraded()
    connection.feed(frame(b"a") + frame(b"?", PING))
    assert [found.opcode for found in connection.frames()] == [Opcode.PONG]
    send(connection, frame(b"!", PING))
    assert connection.frames() == []
    storage.done()
    assert connection.payloads() == [b"!"]


# When it fails


@pytest.mark.parametrize("is_late", [False, True])
def test_a_batch_that_cannot_be_taken_closes_its_peer(is_late: bool) -> None:
    """A failure closes with 1011 and is logged with its traceback; others do not notice."""
    world = World()
    bystander, other = world.upgraded(BOB)
    storage = Storage(world)
    if not is_late:
        world.application.on_messages = lambda session, batch: fail(RuntimeError("secret"))
    connection, session = world.upgraded()
    with LogReader() as log:
        connection.feed(frame(b"a"))
        if is_late:
            assert session.closes == []
            storage.fail()
    assert log.failures == ["An application failed"]
    (event,) = (event for event in log.events if "log_failure" in event)
    assert event["log_failure"].check(RuntimeError)
    assert_closing(connection, 1011, "internal error")
    assert session.closes == [(1011, "internal error")]
    assert connection.is_read()
    world.application.on_messages = lambda session, batch: None
    bystander.feed(frame(b"unharmed"))
    assert other.received == [(b"unharmed", False)]
    bystander.transport.lose()
    connection.settle()
    world.assert_empty()


def test_a_failure_of_what_waits_drops_the_rest() -> None:
    """Neither what was held nor a close frame is delivered or judged after a failure."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    send(connection, frame(b"1") + close_frame(4001))
    send(connection, frame(b"2"))
    with LogReader():
        storage.fail()
    assert [close_of(found)[0] for found in connection.frames()] == [1011]
    assert (session.received, session.closes) == ([(b"1", False)], [(1011, "internal error")])


def test_a_batch_that_is_cancelled_has_failed() -> None:
    """An application that cancels its own Deferred gets no second chance."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    connection.feed(frame(b"a"))
    with LogReader() as log:
        storage.waiting[0].cancel()
    assert [event["log_failure"].type for event in log.events if "log_failure" in event] == [CancelledError]
    assert session.closes == [(1011, "internal error")]


def test_what_is_no_deferred_is_a_failure() -> None:
    """An application that returns something else has failed, and costs its own connection."""
    world = World()
    wrong: Any = object()
    world.application.on_messages = lambda session, batch: wrong
    connection, session = world.upgraded()
    with LogReader() as log:
        connection.feed(frame(b"a"))
    assert log.failures == ["An application failed"]
    assert session.closes == [(1011, "internal error")]


ENDINGS: dict[str, tuple[Callable[[World, Connection, FakeSession], object], int]] = {
    "the transport is lost": (lambda world, connection, session: connection.transport.lose(), 1006),
    "the application closes": (lambda world, connection, session: session.peer.close(4404), 4404),
    "the relay shuts down": (lambda world, connection, session: world.factory.shut_down(), 1001),
    "the relay aborts": (lambda world, connection, session: world.factory.abort(), 1006),
    "the backlog is full": (lambda world, connection, session: overflow(session), 1011),
}


def overflow(session: FakeSession) -> None:
    """Send more than may wait."""
    for _ in range(3):
        session.peer.send([b"#" * (HIGH_WATER_BYTES + 1)])


@pytest.mark.parametrize("outcome", ["taken", "failed", "never"])
@pytest.mark.parametrize("name", ENDINGS)
def test_a_connection_may_end_before_a_batch_is_taken(name: str, outcome: str) -> None:
    """The session is told the end once, and without waiting; what becomes of the batch changes nothing any more."""
    end, code = ENDINGS[name]
    world = World(policy=PeerPolicy(outbox_bytes=1000))
    storage = Storage(world)
    connection, session = world.upgraded(peer_reads=name != "the backlog is full")
    connection.feed(frame(b"a"))
    end(world, connection, session)
    if code in (1001, 4404):
        assert connection.is_read(), "its answer to our close frame would be lost"
        connection.feed(close_frame(code))
    world.pass_time(CLOSE_S + LATE_S)
    connection.settle()
    assert [found for found, _ in session.closes] == [code]
    world.assert_empty()
    with LogReader() as log:
        if outcome == "taken":
            storage.done()
        elif outcome == "failed":
            storage.fail()
    assert log.failures == ["An application failed"] * (outcome == "failed")
    assert len(session.closes) == 1
    world.assert_empty()


def test_a_failure_while_the_close_waits_for_its_answer() -> None:
    """A session that has closed its peer and fails then ends the wait."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    connection.feed(frame(b"a"))
    session.peer.close(4404, "no")
    with LogReader() as log:
        storage.fail()
    assert log.failures == ["An application failed"]
    assert_closing(connection, 4404, "no")
    assert connection.has_ended()
    assert len(session.closes) == 1
    connection.settle()
    world.assert_empty()


# Beside the other reasons not to read


def test_a_pause_and_a_batch_that_waits_are_two_things() -> None:
    """The peer is read from when neither holds."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    session.peer.pause()
    session.peer.resume()
    connection.feed(frame(b"a"))
    session.peer.pause()
    storage.done()
    assert not connection.is_read()
    session.peer.resume()
    assert connection.is_read()
    connection.feed(frame(b"b"))
    session.peer.pause()
    session.peer.resume()
    assert not connection.is_read()
    storage.done()
    assert connection.is_read()


def test_quotas_hold_beside_a_batch_that_waits() -> None:
    """A peer in debt is read from when it has earned its tokens and its batch is taken, whichever comes last."""
    world = World(throttle=ThrottlePolicy(frames=Quota.parse("1/s burst 5")))
    storage = Storage(world)
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 7)
    storage.done()
    assert not connection.is_read()
    world.pass_time(2.0 + LATE_S)
    assert connection.is_read()
    connection.feed(frame(b"a") * 3)
    world.pass_time(10.0)
    assert not connection.is_read()
    storage.done()
    assert connection.is_read()
    assert len(session.received) == 10


def test_a_slow_storage_is_no_fault_of_the_peer() -> None:
    """While a batch waits, neither a pong nor the rest of a message is late, and no ping is sent."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    world.pass_time(30.0 + LATE_S)
    (ping,) = connection.frames()
    connection.feed(frame(b"a") + frame(b"hello")[:-1])
    world.pass_time(300.0)
    assert connection.frames() == []
    assert session.closes == []
    storage.done()
    assert connection.is_read()
    connection.feed(frame(b"hello")[-1:] + frame(bytes(ping.data), 10))
    assert session.received == [(b"a", False), (b"hello", False)]
    storage.done()
    world.pass_time(28.0)
    assert session.closes == []
    world.pass_time(2.0 + LATE_S)
    assert answer_pings(connection) == 1


def test_the_clocks_go_on_when_a_batch_is_taken() -> None:
    """A message that has begun has the rest of its time, and no longer."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    connection.feed(frame(b"a") + frame(b"hello")[:-1])
    world.pass_time(300.0)
    storage.done()
    world.pass_time(29.5)
    answer_pings(connection)
    assert session.closes == []
    world.pass_time(0.5 + LATE_S)
    assert [code for code, _ in session.closes] == [1008]


def test_writes_that_stall_end_a_peer_whose_batch_waits() -> None:
    """A peer that takes nothing is closed in its time, whatever its session waits for."""
    world = World(policy=PeerPolicy(stall_timeout_s=10.0, stall_reason="stalled"))
    storage = Storage(world)
    connection, session = world.upgraded(peer_reads=False)
    connection.feed(frame(b"a"))
    session.peer.send([b"#" * (HIGH_WATER_BYTES + 1), b"more"])
    world.pass_time(10.0 + LATE_S)
    assert session.closes == [(1011, "stalled")]
    storage.done()


# Whatever happens


_WHETHER: Any = st.booleans()


@given(
    texts=st.lists(st.text(max_size=3).map(str.encode), max_size=8),
    ending=st.sampled_from([b"", *(data for data, _, _ in STOPS.values())]),
    data=st.data(),
)
def test_delays_change_nothing_but_the_time(texts: list[bytes], ending: bytes, data: st.DataObject) -> None:
    """The messages, answers and the end are the same whether batches are taken at once or later, however it is cut."""
    stream = b"".join(frame(text, TEXT) for text in texts) + ending
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    world = World()
    expected_connection, expected = world.upgraded()
    for piece in pieces:
        expected_connection.feed(piece)
    storage = Storage(world)
    connection, session = world.upgraded(BOB)
    for piece in pieces:
        send(connection, piece)
        while storage.waiting and data.draw(_WHETHER):
            storage.done()
    while storage.waiting:
        storage.done()
    assert session.received == expected.received
    assert session.closes == expected.closes
    assert connection.take() == expected_connection.take()


def test_a_fault_after_a_batch_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the relay's own, in what follows when a batch is taken, is logged and reaches no caller."""
    world = World()
    storage = Storage(world)
    connection, session = world.upgraded()
    connection.feed(frame(b"a"))

    def broken() -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(connection.transport, "resumeProducing", broken)
    with LogReader() as log:
        storage.done()
    assert log.failures == ["A connection failed in its turn"]
    assert connection.is_cut_off()
    connection.settle()
    assert session.closes == [(1006, "")]
    world.assert_empty()
