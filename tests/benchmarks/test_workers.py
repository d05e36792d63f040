"""What the benchmark of workers computes, and how it finds the worker of a connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from _rig import HOST, OURS, Server
from _traffic import Load
from workers import ALONE, Limited, capacity, process_of


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket of this process that listens."""
    with socket.create_server((HOST, 0)) as sock:
        yield sock


def test_capacity_is_twice_the_ratio_of_each_round() -> None:
    """Workers that cost what one process costs are twice as many; if they cost twice as much, they are worth one."""
    assert capacity({OURS: [1.0, 4.0, 2.5], ALONE: [1.0, 2.0, 2.0]}) == [2.0, 1.0, 1.6]


def test_the_process_of_a_connection_is_found(listening: socket.socket, tmp_path: Path) -> None:
    """The process is the one that has accepted the connection, and not the one that has made it."""
    server = Server(os.getpid(), listening.getsockname()[1], tmp_path)
    with socket.create_connection(listening.getsockname()) as client:
        accepted, _ = listening.accept()
        with accepted:
            assert process_of(server, client) == os.getpid()


def test_a_connection_of_another_process_is_not_found(listening: socket.socket, tmp_path: Path) -> None:
    """A connection that no process of the server has is an error, so that nothing else is killed."""
    server = Server(os.getpid(), listening.getsockname()[1], tmp_path)
    with (
        socket.create_server((HOST, 0)) as other,
        socket.create_connection(other.getsockname()) as client,
        pytest.raises(SystemExit, match="no process"),
    ):
        process_of(server, client)


def test_shares_of_a_core_are_those_of_all_rounds(tmp_path: Path) -> None:
    """What the relay and the load generator used is divided by the time by the clock."""
    limited = Limited(Server(os.getpid(), 1, tmp_path), [os.getpid()])
    limited.loads["frames"] += [Load(10, 0.3, 0.1, 1.0), Load(10, 1.2, 0.6, 2.0)]
    assert limited.shares("frames") == pytest.approx((0.5, 0.7 / 3))
