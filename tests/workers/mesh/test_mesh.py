"""The sockets between workers: what is sent, what has no room, and whose descriptors they are."""

from __future__ import annotations

import array
import contextlib
import errno
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from tests.support.harness import LogReader
from tests.support.listening import Readers
from tests.support.two_workers import mesh_ends, open_sockets

from pyryrelay.workers.mesh.mesh import BATCH, RETRY_S, Mesh
from pyryrelay.workers.mesh.messages import (
    MAX_HEADS,
    MAX_NUMBERS,
    Ended,
    HandedOver,
    encode_head,
    join_heads,
)

HEAD = HandedOver(0, 100, 7, "192.0.2.1", ("192.0.2.1", 5), "/", {"host": ["relay"]}, "key", b"head", b"rest")


def head_with(**changes: object) -> bytes:
    """Return the bytes of the head with other fields."""
    return encode_head(msgspec.structs.replace(HEAD, **changes))


DATA = head_with()


class Both:
    """Two workers' ends, and what the second one has received."""

    def __init__(self) -> None:
        self.reactors = Readers(), Readers()
        self.ends = mesh_ends(2)
        self.meshes = [Mesh(reactor, ends) for reactor, ends in zip(self.reactors, self.ends, strict=True)]
        self.heads: list[tuple[HandedOver, Any]] = []
        self.ended: list[Ended] = []
        self.objects: list[tuple[Any, Any]] = []
        first, second = self.meshes
        first.on_ended = self.ended.append
        second.on_handed_over = lambda message, sock: self.heads.append((message, sock))
        second.on_object("accepted", lambda message, sock: self.objects.append((message, sock)))
        for mesh in self.meshes:
            mesh.start()

    def receive(self, index: int = 1) -> None:
        """Receive all that has come."""
        for _ in range(8):
            self.meshes[index].doRead()

    def close(self) -> None:
        """Close everything."""
        for mesh in self.meshes:
            mesh.stop()
        for ends in self.ends:
            for sock in (ends.receiving, *ends.sending):
                sock.close()
        for _, sock in (*self.heads, *self.objects):
            sock.close()


@pytest.fixture
def both() -> Iterator[Both]:
    """Two workers; at the end no descriptor is left."""
    before = open_sockets()
    both = Both()
    yield both
    both.close()
    assert open_sockets() == before


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A connection, and a peer that is not needed."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as made:
        yield made


def test_a_connection_is_handed_over(both: Both, sock: socket.socket) -> None:
    """The message arrives with a socket of the same connection, and the sender's stays open."""
    assert both.meshes[0].send(1, [DATA], [sock])
    both.receive()
    ((message, received),) = both.heads
    assert message == HEAD
    assert received.getpeername() == sock.getpeername()
    assert received.fileno() != sock.fileno()
    assert not os.get_inheritable(received.fileno())


@pytest.mark.parametrize(
    ("peer", "family"),
    [
        (("192.0.2.1", 5), socket.AF_INET),
        (("2001:db8::1", 5, 0, 0), socket.AF_INET6),
        (("::ffff:192.0.2.1", 5, 0, 0), socket.AF_INET6),
        (None, socket.AF_UNIX),
    ],
)
def test_the_family_follows_from_the_peer(both: Both, sock: socket.socket, peer: Any, family: int) -> None:
    """The kernel is not asked."""
    assert both.meshes[0].send(1, [head_with(peer=peer)], [sock])
    both.receive()
    ((message, received),) = both.heads
    assert (message.peer, received.family) == (peer, family)


def test_several_connections_in_one_message(both: Both) -> None:
    """Each head comes with its own socket, and all are received in one turn."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(MAX_HEADS)]
        for one in itertools.chain(*pairs):
            stack.enter_context(one)
        heads = [head_with(number=number, peer=None) for number in range(MAX_HEADS)]
        assert both.meshes[0].send(1, heads, [theirs for _, theirs in pairs])
        both.meshes[1].doRead()
        assert [message.number for message, _ in both.heads] == list(range(MAX_HEADS))
        for (ours, _), (message, received) in zip(pairs, both.heads, strict=True):
            ours.send(b"%d" % message.number)
            assert received.recv(9) == b"%d" % message.number


def test_a_turn_ends_when_it_has_enough_connections(both: Both, sock: socket.socket) -> None:
    """However few messages they came in."""
    for _ in range(6):
        assert both.meshes[0].send(1, [DATA] * (MAX_HEADS // 2), [sock] * (MAX_HEADS // 2))
    counts = []
    while len(both.heads) < 3 * MAX_HEADS:
        before = len(both.heads)
        both.meshes[1].doRead()
        counts.append(len(both.heads) - before)
    assert counts == [BATCH // 2, BATCH, BATCH, BATCH // 2]


def test_a_turn_has_an_end(both: Both, sock: socket.socket) -> None:
    """It is told before anything is received and when everything was, whatever came, also nothing."""
    told: list[object] = []

    def turn() -> Callable[[], None]:
        told.append("begin")
        return lambda: told.append("end")

    def arrived(message: HandedOver, received: Any) -> None:
        told.append(message.number)
        received.close()

    both.meshes[1].on_turn = turn
    both.meshes[1].on_handed_over = arrived
    assert both.meshes[0].send(1, [DATA, DATA], [sock, sock])
    both.meshes[1].doRead()
    both.meshes[1].doRead()
    assert told == ["begin", 7, 7, "end", "begin", "end"]


def test_objects(both: Both, sock: socket.socket) -> None:
    """Other messages go to the handler of their type; the sockets of those without a handler are closed."""
    message = {"type": "accepted", "endpoint": "tcp:1"}
    for sent in (message, {"type": "unknown"}, {"no": "type"}):
        assert both.meshes[0].send_object(1, sent, sock)
    both.receive()
    ((found, received),) = both.objects
    assert found == message
    assert received.getpeername() == sock.getpeername()


def test_a_turn_receives_so_many(both: Both, sock: socket.socket) -> None:
    """A flood of messages does not keep everything else waiting, and a single one is received alone."""
    for _ in range(4 * BATCH):
        assert both.meshes[0].send(1, [DATA], [sock])
    counts = []
    while len(both.heads) < 4 * BATCH:
        before = len(both.heads)
        both.meshes[1].doRead()
        counts.append(len(both.heads) - before)
    assert counts[:6] == [1, 2, 4, 8, 16, BATCH]
    assert max(counts) == BATCH
    both.meshes[1].doRead()
    both.meshes[1].doRead()
    assert both.meshes[0].send(1, [DATA], [sock])
    both.meshes[1].doRead()
    assert len(both.heads) == 4 * BATCH + 1


def test_no_room(both: Both, sock: socket.socket) -> None:
    """What does not fit is not sent, and nobody waits; there is room again when something was received."""
    sent = 0
    while both.meshes[0].send(1, [head_with(rest=bytes(60_000))], [sock]):
        sent += 1
        assert sent < 10_000
    assert sent > 2
    assert both.meshes[0].refused == 1
    both.receive()
    assert both.meshes[0].send(1, [DATA], [sock])
    assert not both.meshes[0].send_object(1, {"type": "x" * (1 << 20)}, sock)
    assert both.meshes[0].refused == 2


def test_too_many_descriptors_on_their_way(both: Both, sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's limit on them is as good as no room."""

    class Full:
        def sendmsg(self, *_: object) -> int:
            raise OSError(errno.ETOOMANYREFS, "Too many references")

    monkeypatch.setattr(both.meshes[0], "_sending", [Full(), Full()])
    assert not both.meshes[0].send(1, [DATA], [sock])


def test_the_ended_are_told_together(both: Both) -> None:
    """All of a turn go in one message for each process that is told."""
    for number in range(3):
        both.meshes[1].tell_ended(0, 100, number)
    both.meshes[1].tell_ended(0, 101, 9)
    both.receive(0)
    assert both.ended == []
    both.reactors[1].advance(0)
    both.receive(0)
    assert both.ended == [Ended(100, (0, 1, 2)), Ended(101, (9,))]


def test_the_ended_are_not_lost(both: Both, sock: socket.socket) -> None:
    """If there is no room they are told later, in messages of a bounded size."""
    while both.meshes[0].send(0, [DATA], [sock]):
        pass
    for number in range(MAX_NUMBERS + 1):
        both.meshes[1].tell_ended(0, 100, number)
    both.reactors[1].advance(0)
    both.meshes[0].on_handed_over = lambda message, received: received.close()
    for _ in range(1000):
        both.receive(0)
        both.reactors[1].advance(RETRY_S)
    assert [len(ended.numbers) for ended in both.ended] == [MAX_NUMBERS, 1]
    assert not both.reactors[1].getDelayedCalls()


def test_a_process_that_has_ended_is_told_nothing(both: Both) -> None:
    """Its leases are gone with it."""
    both.meshes[1].tell_ended(0, 100, 1)
    both.meshes[1].forget(0)
    both.meshes[1].forget(1)
    both.reactors[1].advance(0)
    both.receive(0)
    assert both.ended == []


def test_what_is_left_is_told_at_the_end(both: Both) -> None:
    """A worker that stops says what it knows."""
    both.meshes[1].tell_ended(0, 100, 1)
    both.meshes[1].stop()
    assert not both.reactors[1].getDelayedCalls()
    assert both.reactors[1].readers == []
    both.receive(0)
    assert both.ended == [Ended(100, (1,))]


def test_messages_wait_for_the_next_process(both: Both, sock: socket.socket) -> None:
    """What was sent to a worker that has ended is received by the one that takes its place."""
    both.meshes[1].stop()
    assert both.meshes[0].send(1, [DATA], [sock])
    other = Mesh(both.reactors[1], both.ends[1])
    other.on_handed_over = lambda message, received: both.heads.append((message, received))
    other.start()
    for _ in range(3):
        other.doRead()
    assert [message for message, _ in both.heads] == [HEAD]
    other.stop()


@pytest.mark.parametrize("data", [b"", b"garbage", b"H", b"j{", b"".join(join_heads([DATA]))[:20]])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_no_message(both: Both, sock: socket.socket, data: bytes, count: int) -> None:
    """It is logged, its descriptors are closed, and the next message is received."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()] * count))] if count else []
    both.ends[0].sending[1].sendmsg([data or b"\0"], rights)
    assert both.meshes[0].send(1, [DATA], [sock])
    with LogReader() as log:
        both.receive()
    assert [message for message, _ in both.heads] == [HEAD]
    assert log.failures == ["A message of another worker failed"]


def test_a_handler_that_fails(both: Both, sock: socket.socket) -> None:
    """It is logged, and the next message is received."""

    def fail(message: HandedOver, received: Any) -> None:
        with contextlib.closing(received):
            raise RuntimeError("planted")

    both.meshes[1].on_handed_over = fail
    for _ in range(2):
        both.meshes[0].send(1, [DATA], [sock])
    with LogReader() as log:
        both.receive()
    assert log.failures == ["A message of another worker failed"] * 2


def test_a_head_without_a_descriptor(both: Both) -> None:
    """If there is no descriptor left here, the sender is told that the connection is over."""
    both.ends[0].sending[1].send(b"".join(join_heads([DATA])))
    both.receive()
    both.reactors[1].advance(0)
    both.receive(0)
    assert both.ended == [Ended(100, (7,))]


def test_fewer_descriptors_than_heads(both: Both, sock: socket.socket) -> None:
    """The kernel passes the first ones, and drops those for which there is no room; their senders are told."""
    heads = [head_with(number=number) for number in range(3)]
    assert both.meshes[0].send(1, heads, [sock, sock])
    both.receive()
    assert [message.number for message, _ in both.heads] == [0, 1]
    both.reactors[1].advance(0)
    both.receive(0)
    assert both.ended == [Ended(100, (2,))]


def test_it_is_started_once(both: Both) -> None:
    """Starting twice is the same as starting once."""
    mesh = both.meshes[0]
    mesh.start()
    assert both.reactors[0].readers == [mesh]
    assert mesh.fileno() == both.ends[0].receiving.fileno()
    assert mesh.logPrefix() == "mesh"
