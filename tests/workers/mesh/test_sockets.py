"""The sockets between workers."""

from __future__ import annotations

import pytest

from pyryrelay.workers.mesh.sockets import MeshSockets


def test_each_worker_hears_all() -> None:
    """What any worker sends to an index arrives there, one message after another."""
    sockets = MeshSockets(3)
    ends = [sockets.of(index) for index in range(3)]
    for sender, each in enumerate(ends):
        for sending in each.sending:
            sending.send(b"from %d" % sender)
    for each in ends:
        assert [each.receiving.recv(100) for _ in ends] == [b"from 0", b"from 1", b"from 2"]
        with pytest.raises(BlockingIOError):
            each.receiving.recv(100)
    sockets.close()


def test_a_worker_that_starts_again_has_the_same() -> None:
    """What was sent to the one before waits for it."""
    sockets = MeshSockets(2)
    sockets.of(0).sending[1].send(b"hello")
    assert sockets.of(1).receiving.recv(100) == b"hello"
    sockets.close()
    assert [end.fileno() for end in (sockets.of(0).receiving, *sockets.of(0).sending)] == [-1, -1, -1]
