"""A shared child serves its workers fairly, waits for none of them, and ends with the supervisor."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pyryrelay.nostr.workers.shared import clients as module
from pyryrelay.nostr.workers.shared.clients import Clients, serve_shared
from pyryrelay.nostr.workers.wire import FrameBuffer, frame


class Recorder:
    """A shared worker that keeps what it is told, and answers frames with ``answer``."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.works = 0
        self.is_closed = False

    def joined(self, number: int) -> None:
        """Keep that."""
        self.told.append(("joined", number))

    def receive(self, number: int, body: bytes) -> None:
        """Keep that."""
        self.told.append((number, body))

    def left(self, number: int) -> None:
        """Keep that."""
        self.told.append(("left", number))

    def work(self) -> None:
        """Count that."""
        self.works += 1

    def wait_s(self) -> float | None:
        """Wait for ever."""
        return None

    def close(self) -> None:
        """Keep that."""
        self.is_closed = True

    def take(self) -> list[tuple[object, ...]]:
        """Return what was told since the last call."""
        told, self.told = self.told, []
        return told


class Door:
    """Clients of a listening socket of the abstract name space, and both ends of the link."""

    def __init__(self) -> None:
        self.link, theirs = socket.socketpair()
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind("")  # Linux chooses a name
        self.listening.listen()
        self.address = self.listening.getsockname()
        self.theirs = theirs
        self.clients = Clients(theirs, self.listening)
        self.worker = Recorder()

    def connect(self) -> socket.socket:
        """Connect a worker."""
        end = socket.socket(socket.AF_UNIX)
        end.settimeout(10)
        end.connect(self.address)
        self.step()
        return end

    def step(self) -> None:
        """Take a turn, without waiting."""
        self.clients.step(self.worker, 0)

    def close(self) -> None:
        """Close all sockets."""
        self.clients.end()
        for end in (self.link, self.theirs, self.listening):
            end.close()


@pytest.fixture
def door() -> Iterator[Door]:
    """A shared child without a process."""
    made = Door()
    yield made
    made.close()


def bodies(end: socket.socket, count: int) -> list[bytes]:
    """Return the next frames."""
    frames = FrameBuffer()
    found: list[bytes] = []
    while len(found) < count:
        found += frames.feed(end.recv(1 << 20))
    return found


def test_frames_are_told_apart_by_worker(door: Door) -> None:
    """Each worker has a number, and frames that come in pieces are whole when they are handed over."""
    with door.connect() as one, door.connect() as other:
        assert door.worker.take() == [("joined", 1), ("joined", 2)]
        one.sendall(frame(b"abc")[:5])
        other.sendall(frame(b"x") + frame(b"y"))
        door.step()
        assert door.worker.take() == [(2, b"x"), (2, b"y")]
        one.sendall(frame(b"abc")[5:])
        door.step()
        assert door.worker.take() == [(1, b"abc")]
        door.clients.send(1, b"for one")
        door.clients.send(2, b"for other")
        assert (bodies(one, 1), bodies(other, 1)) == ([b"for one"], [b"for other"])


def test_a_worker_that_says_it_is_done_gets_its_answers(door: Door) -> None:
    """After the half-close, what is sent still arrives, and then the end of the connection."""
    with door.connect() as end:
        end.sendall(frame(b"last"))
        end.shutdown(socket.SHUT_WR)
        door.step()
        door.step()
        assert door.worker.take() == [("joined", 1), (1, b"last"), ("left", 1)]
        door.clients.send(1, b"answer")
        door.clients.close(1)
        assert bodies(end, 1) == [b"answer"]
        assert end.recv(1) == b""


def test_a_worker_that_died_is_noticed_once(door: Door) -> None:
    """Whether reading or writing finds out, the end is told once, and nothing is sent there any more."""
    door.connect().close()
    door.clients.send(1, b"lost")
    door.step()
    door.step()
    assert door.worker.take() == [("joined", 1), ("left", 1)]
    door.clients.send(1, b"nothing")
    door.clients.close(1)


def test_a_worker_that_does_not_read_keeps_nobody_waiting(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is sent waits here up to a bound; then it is disconnected, and the others go on."""
    monkeypatch.setattr(module, "MAX_OUTBOX_BYTES", 1 << 20)
    with door.connect(), door.connect() as other:
        door.worker.take()
        sent = 0
        while not door.worker.told:
            door.clients.send(1, bytes(256 * 1024))
            sent += 256 * 1024
            assert sent < 64 << 20
            door.step()
        assert door.worker.take() == [("left", 1)]
        door.clients.send(2, b"still here")
        assert bodies(other, 1) == [b"still here"]


def test_what_waits_is_sent_when_there_is_room(door: Door) -> None:
    """All of it arrives, in order, also if the worker only reads later."""
    with door.connect() as end:
        sent = [bytes([number]) * 300_000 for number in range(20)]
        for body in sent:
            door.clients.send(1, body)
        found: list[bytes] = []
        frames = FrameBuffer()
        while len(found) < len(sent):
            found += frames.feed(end.recv(1 << 20))
            door.step()
        assert found == sent


def test_nonsense_disconnects(door: Door) -> None:
    """A frame that is impossibly long ends the connection of that worker alone."""
    with door.connect() as end, door.connect() as other:
        end.sendall(b"\xff\xff\xff\xff")
        door.step()
        door.step()
        assert ("left", 1) in door.worker.take()
        assert end.recv(1) == b""
        other.sendall(frame(b"fine"))
        door.step()
        assert door.worker.take() == [(2, b"fine")]


def test_processes_of_other_users_are_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells who has connected; only processes of the same user are served."""
    monkeypatch.setattr("pyryrelay.nostr.workers.shared.clients.os.geteuid", lambda: 4711)
    with door.connect() as end:
        assert end.recv(1) == b""
    assert door.worker.take() == []


def test_the_end_of_the_link_is_the_end(door: Door) -> None:
    """When the supervisor has gone, the child ends, whoever is connected."""
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(door.address)
        door.link.close()
        serve_shared(door.theirs, door.listening, lambda clients: door.worker)
        assert door.worker.is_closed
        end.settimeout(10)
        assert end.recv(1) == b""
