"""Turns of the reactor hold a bounded number of descriptors."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor

from pyryrelay.wire.turns import BoundedPoll, bound_turns

READY = 10


@pytest.fixture
def pipes() -> Any:
    """Pipes from which something can be read; the reading ends."""
    ends = [os.pipe() for _ in range(READY)]
    for _, write in ends:
        os.write(write, b"!")
    yield [read for read, _ in ends]
    for end in ends:
        os.close(end[0])
        os.close(end[1])


@pytest.mark.parametrize("asked", [-1, 4, 1000])
def test_all_get_their_turn(pipes: list[int], asked: int) -> None:
    """No more than the bound at once, and everybody who is ready before anybody comes again."""
    epoll = select.epoll()
    poll = BoundedPoll(epoll, 4)
    for fd in pipes:
        poll.register(fd, select.EPOLLIN)
    turns = [[fd for fd, _ in poll.poll(0, asked)] for _ in range(3)]
    poll.close()
    assert [len(turn) for turn in turns] == [4, 4, 4]
    assert set().union(*turns) == set(pipes)


def test_the_epoll_reactor_is_bounded() -> None:
    """It keeps its poll object where this looks for it, and works with the bound."""
    reactor = EPollReactor()
    called: list[int] = []
    assert bound_turns(reactor)
    assert bound_turns(reactor)
    assert isinstance(reactor._poller, BoundedPoll)
    assert isinstance(reactor._poller._poll, select.epoll)
    reactor.callLater(0, called.append, 1)
    reactor.iterate(0.1)
    assert called == [1]
    reactor._poller.close()


def test_the_asyncio_reactor_is_bounded() -> None:
    """So does asyncio's."""
    loop = asyncio.SelectorEventLoop()
    reactor = AsyncioSelectorReactor(loop)
    assert bound_turns(reactor)
    awake: list[str] = []
    # A loop of its own thread: under --reactor=asyncio one is running in this one already.
    runner = threading.Thread(target=lambda: awake.append(loop.run_until_complete(asyncio.sleep(0, "awake"))))
    runner.start()
    runner.join(20)
    loop.close()
    assert awake == ["awake"]


@pytest.mark.parametrize("reactor", [object(), SimpleNamespace(_poller="select"), SimpleNamespace(_asyncioEventloop=1)])
def test_other_reactors_are_left_alone(reactor: object) -> None:
    """What is not known is not touched."""
    assert not bound_turns(reactor)
