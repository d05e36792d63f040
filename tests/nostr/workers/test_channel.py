"""A child reads and writes whole messages until the other end is closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from pyryrelay.nostr.storage.interface import OlderStoreError, StoreError
from pyryrelay.nostr.workers.channel import (
    GIVE_WAY_S,
    MOST_TAKEN,
    Channel,
    GivingWay,
    GoneError,
    Poll,
    Send,
    patiently,
    problem,
    serve,
)
from pyryrelay.nostr.workers.wire import FrameBuffer, Ready, encode, frame


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Channel]]:
    """The test's end of a channel, and the channel."""
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    with ours, theirs:
        yield ours, Channel(theirs)


class Echo:
    """A worker that sends back what it receives, and closes loudly."""

    def __init__(self, config: bytes, send: Send) -> None:
        self._send = send
        self.received = [config]
        self.turns = 0
        self.is_closed = False

    def receive(self, body: bytes) -> None:
        """Send it back."""
        self.received.append(body)
        self._send(body)

    def work(self, poll: Poll) -> None:
        """Count the turns, and take what has arrived meanwhile."""
        self.turns += 1
        self.received += poll()

    def wait_s(self) -> float | None:
        """Have something to do without frames for three turns."""
        return 0.0 if self.turns < 3 else None

    def close(self) -> None:
        """Keep that."""
        self.is_closed = True


def test_frames_arrive_whole(ends: tuple[socket.socket, Channel]) -> None:
    """Parts of frames are kept until the rest comes, and waiting ends after its time."""
    ours, channel = ends
    assert channel.receive(0) == []
    stream = frame(b"one") + frame(b"two")
    ours.sendall(stream[:5])
    assert channel.receive(None) == []
    ours.sendall(stream[5:])
    assert channel.receive(60) == [b"one", b"two"]
    assert channel.receive(0.001) == []


def test_messages_are_sent_whole(ends: tuple[socket.socket, Channel]) -> None:
    """A message is one frame."""
    ours, channel = ends
    channel.send(Ready(1, 2))
    assert FrameBuffer().feed(ours.recv(1000)) == [encode(Ready(1, 2))]


def test_messages_are_sent_together(ends: tuple[socket.socket, Channel]) -> None:
    """Several are in one piece, in order."""
    ours, channel = ends
    channel.send(Ready(1, 2), Ready(3, 4))
    assert FrameBuffer().feed(ours.recv(1000)) == [encode(Ready(1, 2)), encode(Ready(3, 4))]


def test_others_run_every_now_and_then() -> None:
    """A child lets others run as often as that is due, and the first time at once."""
    clock = Clock()
    ways: list[float] = []
    let_others_run = GivingWay(clock.seconds, lambda: ways.append(clock.seconds()))
    for _ in range(40):
        assert let_others_run() == clock.seconds()
        clock.advance(GIVE_WAY_S / 4)
    assert len(ways) == pytest.approx(10, abs=1)


@pytest.mark.parametrize("taken_s", [GIVE_WAY_S, 0.004, 0.1])
def test_others_that_never_stop_leave_a_share(taken_s: float) -> None:
    """They get no more than three times as much time as the child."""
    clock = Clock()
    let_others_run = GivingWay(clock.seconds, lambda: clock.advance(taken_s))
    worked_s = 0.0
    while clock.seconds() < 10:
        let_others_run()
        clock.advance(GIVE_WAY_S / 4)
        worked_s += GIVE_WAY_S / 4
    assert worked_s >= 0.99 * clock.seconds() / (1 + MOST_TAKEN)


def test_the_end_comes_after_what_was_sent(ends: tuple[socket.socket, Channel]) -> None:
    """What was sent before the end is received, and sending fails afterwards."""
    ours, channel = ends
    ours.sendall(frame(b"last"))
    ours.close()
    assert channel.receive(None) == [b"last"]
    with pytest.raises(GoneError):
        channel.receive(None)
    with pytest.raises(GoneError):
        channel.send(Ready())


def test_a_reset_is_an_end(ends: tuple[socket.socket, Channel]) -> None:
    """If the other end is closed with something unread, the child is told as well."""
    ours, channel = ends
    channel.send(Ready())
    ours.close()
    with pytest.raises(GoneError):
        channel.receive(None)


def test_a_worker_works_until_the_end(ends: tuple[socket.socket, Channel]) -> None:
    """It gets the configuration, the frames, turns while it has work, and is closed."""
    ours, channel = ends
    workers: list[Echo] = []

    def open_worker(config: bytes, send: Send) -> Echo:
        workers.append(Echo(config, send))
        return workers[0]

    ours.sendall(frame(b"config") + frame(b"a"))
    ours.shutdown(socket.SHUT_WR)
    serve(channel, open_worker)
    (echo,) = workers
    assert echo.received == [b"config", b"a"]
    assert echo.turns >= 1
    assert echo.is_closed
    assert FrameBuffer().feed(ours.recv(1000)) == [encode(b"a")]


def test_a_worker_ends_when_nobody_listens(ends: tuple[socket.socket, Channel]) -> None:
    """It is closed even if the end comes while it sends."""
    ours, channel = ends
    ours.sendall(frame(b"config") + frame(b"a"))
    ours.close()
    workers: list[Echo] = []

    def open_worker(config: bytes, send: Send) -> Echo:
        workers.append(Echo(config, send))
        return workers[0]

    serve(channel, open_worker)
    assert workers[0].is_closed


def test_without_a_configuration_nothing_is_opened(ends: tuple[socket.socket, Channel]) -> None:
    """The relay may end right after it has started a child."""
    ours, channel = ends
    ours.close()
    serve(channel, lambda config, send: pytest.fail("opened"))


def test_a_store_may_be_about_to_be_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening it is tried again for a while, and then fails with the store's reason."""
    results: list[object] = [StoreError("missing"), StoreError("missing"), "store"]

    def open_store() -> object:
        result = results.pop(0)
        if isinstance(result, StoreError):
            raise result
        return result

    assert patiently(open_store) == "store"
    monkeypatch.setattr("pyryrelay.nostr.workers.channel.PATIENCE_S", 0.0)
    results[:] = [StoreError("damaged")]
    with pytest.raises(StoreError, match="damaged"):
        patiently(open_store)
    results[:] = [OlderStoreError("older"), "store"]
    assert patiently(open_store) == "store"


def test_a_problem_is_one_line_without_content() -> None:
    """The store's own texts are shown; of other errors, only the type and the place."""
    assert problem(StoreError("the disk is full")) == "the disk is full"
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("content of an event")
    assert problem(caught.value).startswith("ValueError in line ")
    assert problem(caught.value).endswith("test_channel.py")
