"""A turn of the reactor handles a bounded number of descriptors, and those of disconnected peers come last."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor

from pyryrelay.runtime.bounded_poll import HANGUP_BUDGET_S, BoundedPoll, bound_poll

READY = 10


@pytest.fixture
def pipes() -> Any:
    """Return the reading ends of pipes from which something can be read."""
    ends = [os.pipe() for _ in range(READY)]
    for _, write in ends:
        os.write(write, b"!")
    yield [read for read, _ in ends]
    for end in ends:
        os.close(end[0])
        os.close(end[1])


@pytest.mark.parametrize("asked", [-1, 4, 1000])
def test_all_get_their_turn(pipes: list[int], asked: int) -> None:
    """Each turn handles at most the bound, and every ready descriptor comes once before any comes again."""
    epoll = select.epoll()
    poll = BoundedPoll(epoll, 4)
    for fd in pipes:
        poll.register(fd, select.EPOLLIN)
    turns = [[fd for fd, _ in poll.poll(0, asked)] for _ in range(3)]
    poll.close()
    assert [len(turn) for turn in turns] == [4, 4, 4]
    assert set().union(*turns) == set(pipes)


class Peers:
    """Sockets in a poll object whose peers can send and hang up, handled as reactors do."""

    def __init__(self, count: int, most: int = 4) -> None:
        self.now_s = 0.0
        self.turns = 0
        self.epoll = select.epoll()
        self.poll = BoundedPoll(self.epoll, most, self._began, lambda: self.now_s)
        pairs = [socket.socketpair() for _ in range(count)]
        for ours, _ in pairs:
            ours.setblocking(False)
        self.theirs = [theirs for _, theirs in pairs]
        self.ours = {ours.fileno(): ours for ours, _ in pairs}
        self.fds = list(self.ours)
        for fd in self.fds:
            self.poll.register(fd, select.EPOLLIN)

    def _began(self) -> None:
        self.turns += 1

    def turn(self, handling_s: float = 0.0, *, ends: bool = True) -> list[int]:
        """Run a turn, read from each socket, end those that have hung up, and return the numbers."""
        given = self.poll.poll(0, 1000)
        for fd, event in given:
            assert event & ~(select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) == 0
            if not self.ours[fd].recv(4) and ends:
                self.poll.unregister(fd)
                self.ours.pop(fd).close()
            self.now_s += handling_s
        return [self.fds.index(fd) for fd, _ in given]

    def close(self) -> None:
        """Close all sockets."""
        self.epoll.close()
        for sock in (*self.theirs, *self.ours.values()):
            sock.close()


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Twenty peers."""
    peers = Peers(20)
    yield peers
    peers.close()


def test_disconnected_peers_come_behind_all_others(peers: Peers) -> None:
    """Every connected peer is handled in the first turn, and all disconnected ones in later turns."""
    for theirs in peers.theirs[:-1]:
        theirs.close()
    peers.theirs[-1].send(b"here")
    assert peers.turn() == [19, 0, 1, 2, 3]
    peers.theirs[-1].send(b"here")
    assert peers.turn() == [19, 4, 5, 6, 7]
    assert [number for _ in range(3) for number in peers.turn()] == list(range(8, 19))
    assert peers.turn() == []
    assert peers.turns == 6
    assert list(peers.ours) == [peers.fds[19]]


def test_a_few_disconnected_peers_come_in_the_same_turn(peers: Peers) -> None:
    """A few disconnected peers are handled behind the others, without being taken out of the poll object."""
    for theirs in peers.theirs[:2]:
        theirs.close()
    peers.theirs[2].send(b"here")
    assert peers.turn(ends=False) == [2, 0, 1]
    assert peers.poll._pending_hangups == {}
    assert peers.turn() == [0, 1]
    assert peers.turn() == []


def test_what_they_sent_before_is_read_to_its_end(peers: Peers) -> None:
    """A disconnected peer with unread data comes again until all is read."""
    for theirs in peers.theirs[:6]:
        theirs.send(b"lastwords")
        theirs.close()
    given = [number for _ in range(8) for number in peers.turn()]
    assert sorted(given) == sorted([*range(6)] * 4)
    assert len(peers.ours) == 14


def test_slow_disconnects_are_fewer_in_a_turn() -> None:
    """The number of disconnects in a turn is halved after a slow turn, down to a few, and grows again."""
    peers = Peers(1000, most=64)
    for theirs in peers.theirs:
        theirs.close()
    dear_s = HANGUP_BUDGET_S / 6
    assert [len(peers.turn(dear_s)) for _ in range(6)] == [64, 32, 16, 8, 8, 8]
    assert [len(peers.turn(dear_s / 100)) for _ in range(6)] == [8, 16, 32, 64, 64, 64]
    peers.close()


def test_paused_descriptors_are_not_returned(peers: Peers) -> None:
    """A waiting descriptor that is paused, written to or closed is not returned."""
    for theirs in peers.theirs[:8]:
        theirs.shutdown(socket.SHUT_WR)
    assert peers.turn() == [0, 1, 2, 3]
    peers.poll.unregister(peers.fds[4])
    peers.poll.modify(peers.fds[5], select.EPOLLOUT)
    peers.poll.modify(peers.fds[6], 0)
    given = dict(peers.poll.poll(0))
    assert given == {peers.fds[5]: select.EPOLLOUT, peers.fds[7]: select.EPOLLIN}
    peers.poll.modify(peers.fds[6], select.EPOLLIN)
    assert peers.fds[6] in dict(peers.poll.poll(0))


def test_a_descriptor_that_is_used_again_is_another_one(peers: Peers) -> None:
    """A descriptor that is used again starts without the state of the connection before."""
    for theirs in peers.theirs[:8]:
        theirs.close()
    peers.turn()
    fd = peers.fds[7]
    peers.poll.unregister(fd)
    peers.ours.pop(fd).close()
    ours, theirs = socket.socketpair()
    os.dup2(ours.fileno(), fd)
    peers.poll.register(fd, select.EPOLLIN)
    assert fd not in dict(peers.poll.poll(0))
    theirs.send(b"here")
    assert fd in dict(peers.poll.poll(0))
    os.close(fd)
    ours.close()
    theirs.close()


def test_descriptors_that_were_registered_before(pipes: list[int]) -> None:
    """Descriptors that were registered before stay in the poll object, since their masks are unknown."""
    epoll = select.epoll()
    ours, theirs = socket.socketpair()
    epoll.register(ours.fileno(), select.EPOLLIN)
    poll = BoundedPoll(epoll, 4)
    theirs.close()
    assert poll.poll(0) == [(ours.fileno(), select.EPOLLIN | select.EPOLLHUP)]
    poll.unregister(ours.fileno())
    assert poll.poll(0) == []
    poll.close()
    ours.close()


def test_the_epoll_reactor_is_bounded() -> None:
    """The epoll reactor has its poll object where the bound looks for it, and works with it."""
    reactor = EPollReactor()
    called: list[int] = []
    assert bound_poll(reactor)
    assert bound_poll(reactor)
    assert isinstance(reactor._poller, BoundedPoll)
    assert isinstance(reactor._poller._poll, select.epoll)
    reactor.callLater(0, called.append, 1)
    reactor.iterate(0.1)
    assert called == [1]
    reactor._poller.close()


def test_the_asyncio_reactor_is_bounded() -> None:
    """The asyncio reactor works with the bound as well."""
    loop = asyncio.SelectorEventLoop()
    reactor = AsyncioSelectorReactor(loop)
    assert bound_poll(reactor)
    awake: list[str] = []
    # A loop in its own thread: under --reactor=asyncio this thread is running one already.
    runner = threading.Thread(target=lambda: awake.append(loop.run_until_complete(asyncio.sleep(0, "awake"))))
    runner.start()
    runner.join(20)
    loop.close()
    assert awake == ["awake"]


@pytest.mark.parametrize("reactor", [object(), SimpleNamespace(_poller="select"), SimpleNamespace(_asyncioEventloop=1)])
def test_other_reactors_are_left_alone(reactor: object) -> None:
    """An unknown reactor is left unchanged."""
    assert not bound_poll(reactor)
