"""Which connections are passed to another process, and what becomes of those for which there is no room."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import pytest

from pyryrelay.listen.kernel.steering import Steering
from pyryrelay.workers.sockets.passing import Passing, handler_of, passed, peer_address
from pyryrelay.workers.sockets.worker_sockets import Queued
from pyryrelay.workers.steering import steer

ENDPOINT = "systemd:domain=INET:index=0"


class Others:
    """The other workers, who may have no room."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, dict[str, Any]]] = []
        self.has_room = True

    def __call__(self, index: int, message: Mapping[str, object], sock: object) -> bool:
        """Keep a message, as it would arrive."""
        if self.has_room:
            self.sent.append((index, json.loads(json.dumps(message))))
        return self.has_room


@pytest.fixture
def others() -> Others:
    """Workers with room."""
    return Others()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """The socket of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def passing(index: int | None, others: Others) -> Passing:
    """Return what passes on in one of four processes."""
    return Passing(index, lambda: Steering(4), others)


@pytest.mark.parametrize("host", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "fe80::1%eth0", "203.0.113.9"])
def test_only_the_owner_keeps_a_connection(host: str, others: Others, sock: socket.socket) -> None:
    """One of the processes keeps it, and all others name that one."""
    peer = (host, 4711) if ":" not in host else (host, 4711, 0, 0)
    address = ip_address(host.partition("%")[0])
    owner = steer(address, 4)
    kept = [index for index in range(4) if not passing(index, others).is_passed(ENDPOINT, sock, peer)]
    assert kept == [owner]
    assert [index for index, _ in others.sent] == [owner] * 3
    assert passed(others.sent[0][1]) == (ENDPOINT, peer)


@pytest.mark.parametrize("peer", [(), "", (b"x",), ("no address", 1)])
def test_peers_without_an_address_stay(peer: Any, others: Others, sock: socket.socket) -> None:
    """The peer of a UNIX socket belongs to whoever accepts it."""
    assert peer_address(peer) is None
    assert not passing(2, others).is_passed(ENDPOINT, sock, peer)
    assert others.sent == []


def test_no_room(others: Others, sock: socket.socket) -> None:
    """A connection for which its owner has no room is counted, and served by nobody else."""
    others.has_room = False
    one = passing((steer(ip_address("192.0.2.1"), 4) + 1) % 4, others)
    assert one.is_passed(ENDPOINT, sock, ("192.0.2.1", 1))
    assert one.lost == 1


@pytest.mark.parametrize("owner", [None, 3])
def test_drop_queues(owner: int | None, others: Others, sock: socket.socket) -> None:
    """The supervisor passes everything on: to the worker whose endpoint it is, or to the one that is steered to."""
    passing(None, others).pass_queued(Queued(ENDPOINT, owner, sock, ("192.0.2.1", 1)))
    expected = steer(ip_address("192.0.2.1"), 4) if owner is None else owner
    assert [index for index, _ in others.sent] == [expected]
    assert sock.fileno() == -1


def test_what_was_passed_is_received(others: Others, sock: socket.socket) -> None:
    """The other process handles it as if it had accepted it, and closes what it does not understand."""
    found: list[tuple[str, Any, Any]] = []
    handle = handler_of(lambda text, sock, address: found.append((text, sock, address)))
    one, owner = passing(None, others), steer(ip_address("192.0.2.1"), 4)
    assert one.is_passed(ENDPOINT, sock, ("192.0.2.1", 7))
    handle(others.sent[0][1], sock)
    assert (others.sent[0][0], found) == (owner, [(ENDPOINT, sock, ("192.0.2.1", 7))])
    handle({"type": "accepted"}, sock)
    assert sock.fileno() == -1


@pytest.mark.parametrize(
    "message", [{}, {"type": "accepted"}, {"type": "accepted", "endpoint": 1, "peer": ["a", 1]}, {"type": "head"}]
)
def test_messages_that_are_not_understood(message: dict[str, object]) -> None:
    """They name no connection."""
    assert passed(message) is None
