"""Applications that fail, calls on peers that are gone, and bytes after the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from tests.support.frames import BINARY, PING, PONG, close_frame, frame, header
from tests.support.harness import BOB, Connection, FakeSession, LogReader, World, assert_closing, request_head
from tests.support.transports import HIGH_WATER_BYTES

from pyryrelay.protocol import Message, PeerPolicy
from pyryrelay.runtime.timer_wheel import SLOT_S
from pyryrelay.websocket.context import WebSocketLimits

BLOCK = b"#" * (HIGH_WATER_BYTES + 1)
CLOSE_S = WebSocketLimits().close_timeout_s

Failing = Callable[[World, Connection, FakeSession], None]


def we_close(connection: Connection, session: FakeSession) -> None:
    """Close, and receive the answer."""
    session.peer.close(4404)
    connection.feed(close_frame(4404))


ENDINGS: dict[str, Callable[[Connection, FakeSession], None]] = {
    "lost": lambda connection, session: connection.transport.lose(),
    "peer closes": lambda connection, session: connection.feed(close_frame()),
    "protocol error": lambda connection, session: connection.feed(frame(b"a", mask=None)),
    "we close": we_close,
}


# After the end


def closes_itself(session: FakeSession) -> None:
    """Close what is closed."""
    session.peer.close(4404)


def speaks(session: FakeSession) -> None:
    """Send to a peer that is gone."""
    session.peer.send([BLOCK, b"more"])
    session.peer.ping(lambda: None)


@pytest.mark.parametrize("deed", [closes_itself, speaks])
@pytest.mark.parametrize("name", ["lost", "peer closes", "protocol error"])
def test_an_application_may_touch_a_peer_that_is_gone(deed: Callable[[FakeSession], None], name: str) -> None:
    """Calls on a peer from inside `closed` do nothing, and leave no timer."""
    world = World()
    world.application.on_closed = deed
    connection, session = world.upgraded()
    ENDINGS[name](connection, session)
    if name == "lost":
        assert len(world.wheel) == 0
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    connection.settle()
    assert len(session.closes) == 1
    world.assert_empty()
    deed(session)
    session.peer.pause()
    session.peer.resume()
    world.assert_empty()


@pytest.mark.parametrize("name", ["peer closes", "protocol error", "we close"])
def test_bytes_after_the_end_are_not_kept(name: str) -> None:
    """Bytes that arrive after the end, as from TLS transports, use no memory."""
    world = World()
    connection, session = world.upgraded()
    ENDINGS[name](connection, session)
    protocol = connection.protocol._websocket
    assert protocol is not None
    for _ in range(100):
        connection.protocol.dataReceived(b"\x00" * 65536)
    assert len(protocol.data) + len(protocol._reader._kept) <= 65536


def test_a_peer_that_has_lost_its_frames_is_not_waited_for() -> None:
    """An invalid header in place of the answer to our close frame ends the connection."""
    world = World()
    connection, session = world.upgraded()
    session.peer.close(4404)
    ended = [connection.has_ended()]
    connection.feed(bytes(65536))
    ended.append(connection.has_ended())
    assert ended == [False, True]
    connection.settle()
    assert [code for code, _ in session.closes] == [4404]
    world.assert_empty()


@pytest.mark.parametrize(
    "start",
    [
        header(1 << 40, PING) + bytes(4),
        header(1 << 40, BINARY) + bytes(4),
        frame(b"a", mask=None) + header(1 << 40, PING) + bytes(4),
    ],
    ids=["endless ping", "endless message", "endless ping after a breach"],
)
def test_the_payload_of_an_invalid_frame_is_not_kept(start: bytes) -> None:
    """The payload of an invalid frame is not kept while the close frame waits for its answer."""
    world = World()
    connection, session = world.upgraded()
    connection.feed(start)
    protocol = connection.protocol._websocket
    assert protocol is not None
    for _ in range(20):
        connection.feed(b"x" * 65536)
    assert len(protocol.data) + len(protocol._reader._kept) <= 65536
    assert len(session.closes) == 1


# Applications that fail


def fail(*args: object) -> None:
    """Fail, as an application might."""
    raise RuntimeError("secret")


def fail_on_message(world: World, connection: Connection, session: FakeSession) -> None:
    """Let `messages` fail."""
    world.application.on_messages = fail
    connection.feed(frame(b"hello") + frame(b"again"))


def fail_on_drain(world: World, connection: Connection, session: FakeSession) -> None:
    """Let `on_drain` fail."""
    session.peer.on_drain = fail
    connection.transport.peer_reads = False
    session.peer.send([BLOCK])
    connection.transport.read_all()
    connection.transport.peer_reads = True


def fail_on_pong(world: World, connection: Connection, session: FakeSession) -> None:
    """Let the answer to a ping fail."""
    session.peer.ping(fail)
    connection.feed(frame(bytes(connection.frames()[0].data), PONG))


@pytest.mark.parametrize("ending", [fail_on_message, fail_on_drain, fail_on_pong])
def test_an_application_that_fails_closes_its_peer_with_1011(ending: Failing) -> None:
    """An error in a callback is logged, reaches neither reactor nor peer, and closes this connection only."""
    world = World()
    bystander, other = world.upgraded(BOB)
    connection, session = world.upgraded()
    with LogReader() as log:
        ending(world, connection, session)
    assert_closing(connection, 1011, "internal error")
    assert session.closes == [(1011, "internal error")]
    assert len(log.failures) == 1
    assert "secret" not in log.failures[0]
    world.application.on_messages = lambda session, batch: None
    bystander.feed(frame(b"unharmed"))
    assert other.received == [(b"unharmed", False)]
    bystander.transport.lose()
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    connection.settle()
    world.assert_empty()


def test_an_application_that_cannot_open_a_session() -> None:
    """An error in `opened` closes with 1011 after the 101, and no session is told."""
    world = World()
    world.application.on_opened = fail
    connection = world.connect()
    connection.feed(request_head() + frame(b"early"))
    answer = connection.take()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"internal error")
    assert b"secret" not in answer
    session = world.application.sessions[0]
    assert (session.received, session.closes) == ([], [])
    connection.feed(close_frame(1011))
    connection.settle()
    world.assert_empty()


def test_a_transport_with_another_producer() -> None:
    """A transport that already has a producer is closed with 1011, and aborted without an answer."""
    world = World()
    connection = world.connect()
    with LogReader() as log:
        connection.transport.producer = object()
        connection.feed(request_head())
        connection.transport.producer = None
    assert connection.take().endswith(b"internal error")
    assert len(log.failures) == 1
    assert world.application.sessions == []
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()


def test_an_application_that_fails_on_the_end() -> None:
    """An error in `closed` does not affect the end."""
    world = World()
    world.application.on_closed = fail
    connection, session = world.upgraded()
    connection.transport.lose()
    assert session.closes == [(1006, "")]
    world.assert_empty()


def test_a_full_backlog_from_inside_a_message() -> None:
    """A session that fills its own peer's outbox while it handles a batch is told the end once, after the call."""
    world = World(policy=PeerPolicy(outbox_bytes=1))
    connection, session = world.upgraded(peer_reads=False)

    def overflow(session: FakeSession, batch: Sequence[Message]) -> None:
        session.peer.send([BLOCK])
        session.peer.send([b"a", b"b"])

    world.application.on_messages = overflow
    connection.feed(frame(b"go") + frame(b"on"))
    assert [code for code, _ in session.closes] == [1011]
    world.pass_time(CLOSE_S + 2 * SLOT_S)
    connection.settle()
    world.assert_empty()
