"""Groups leave a process: each in one go, spread over the time, and earlier if the other process asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest
from tests.support.pyry import A, B, FakePeer, World, request
from twisted.internet.defer import Deferred

from pyryrelay.pyry.handover.moving import FREE, HELD, Moving

MOVED = [(1001, "shutting down")]


def fields(server_id: str) -> dict[str, str]:
    return {"x-pyrycode-server": server_id, "x-pyrycode-version": "1", "user-agent": "x"}


def binary(world: World, server_id: str) -> FakePeer:
    peer = FakePeer()
    world.binaries.opened(peer, request(fields(server_id)))
    return peer


def phone(world: World, server_id: str) -> FakePeer:
    peer = FakePeer()
    world.phones.opened(peer, request(fields(server_id), "/v1/client"))
    return peer


def moving(world: World, over_s: float) -> Moving:
    world.relay.handover = moving = Moving(world.relay)
    moving.begin(over_s)
    return moving


def result(answer: bytes | Deferred[bytes]) -> bytes | None:
    """Return an answer, None if it is still to come."""
    if isinstance(answer, bytes):
        return answer
    found: list[bytes] = []

    def note(value: bytes) -> bytes:
        found.append(value)
        return value

    answer.addCallback(note)
    return found[0] if found else None


def test_groups_are_closed_in_one_go_and_spread_over_the_time(world: World) -> None:
    """One group moves at once, the others evenly over the time, each with all of its phones."""
    peers = {name: [binary(world, name), *(phone(world, name) for _ in range(3))] for name in "abcd"}
    done: list[object] = []
    moving(world, 8.0).done.addCallback(done.append)
    for count in (1, 2, 3, 4):
        gone = [name for name, group in peers.items() if all(peer.closes == MOVED for peer in group)]
        assert len(gone) == count
        assert all(not peer.closes for name, group in peers.items() if name not in gone for peer in group)
        assert bool(done) == (count == 4)
        world.clock.advance(2.0)
    assert len(world.relay.registry) == 0


@pytest.mark.parametrize("count", [0, 3])
def test_no_time_at_all(world: World, count: int) -> None:
    """With 0 s everybody is closed at once, and without groups nothing is waited for."""
    peers = [binary(world, str(number)) for number in range(count)]
    assert moving(world, 0.0).done.called
    assert [peer.closes for peer in peers] == [MOVED] * count


def test_peers_that_were_accepted_before(world: World) -> None:
    """They are sent away, unless their group is still here."""
    here = binary(world, A)
    moving(world, 3600.0)
    assert here.closes == MOVED
    assert binary(world, B).closes == phone(world, B).closes == MOVED
    other = World()
    first, second = binary(other, A), binary(other, B)
    moving(other, 3600.0)
    stays = A if not first.closes else B
    late = phone(other, stays)
    assert not late.closes
    assert len(first.closes) + len(second.closes) == 1


def test_what_the_other_process_asks(world: World) -> None:
    """It learns what is held, and moves groups before their time."""
    peers = {server_id: binary(world, server_id) for server_id in (A, B)}
    hand = moving(world, 3600.0)
    (left,) = [server_id for server_id, peer in peers.items() if not peer.closes]
    # The question may come behind the first groups, whose phones would not wait for their binaries otherwise.
    assert json.loads(result(hand.answer(b"held")) or b"") == sorted([A, B])
    assert result(hand.answer(b"nonsense")) == b""
    assert result(hand.answer(b"claim nobody")) == FREE
    assert result(hand.answer(f"move {left}".encode())) == b""
    assert peers[left].closes == MOVED
    assert hand.done.called


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_binary_that_claims_there(world: World, is_alive: bool) -> None:
    """The incumbent here is probed: if it answers it stays, and otherwise its group moves."""
    peers = {server_id: binary(world, server_id) for server_id in (A, B)}
    hand = moving(world, 3600.0)
    (left,) = [server_id for server_id, peer in peers.items() if not peer.closes]
    friend = phone(world, left)
    answer = hand.answer(f"claim {left}".encode())
    assert result(answer) is None
    if is_alive:
        peers[left].answer()
        assert result(answer) == HELD
        assert not peers[left].closes
        return
    world.clock.advance(10.0)
    world.clock.advance(0.0)
    assert result(answer) == FREE
    assert peers[left].closes == [(1011, "heartbeat timeout")]
    assert friend.closes == [(4404, "binary reclaimed server-id")]
    assert hand.done.called


def test_a_grace_is_no_incumbent(world: World) -> None:
    """A server-id whose binary has left is free, and its phones move."""
    peer = FakePeer()
    session = world.binaries.opened(peer, request(fields(A)))
    left = phone(world, A)
    other = binary(world, B)
    hand = moving(world, 3600.0)
    if left.closes:
        return
    session.closed(1006, "")
    assert result(hand.answer(f"claim {A}".encode())) == FREE
    assert left.closes == MOVED
    assert other.closes == MOVED


def test_groups_that_go_by_themselves(world: World) -> None:
    """If the last groups end before their turn, nothing is waited for."""
    ended: list[Callable[[], None]] = []
    for server_id in (A, B, "third"):
        peer = FakePeer()
        session = world.binaries.opened(peer, request(fields(server_id)))
        ended.append(partial(session.closed, 1006, ""))
    done: list[object] = []
    moving(world, 3600.0).done.addCallback(done.append)
    for end in ended:
        end()
        assert not done
    # The grace of the last one ends.
    world.clock.advance(600.0)
    assert done
    assert not world.clock.getDelayedCalls()


def test_a_group_that_goes_before_it_begins(world: World) -> None:
    """What comes between that and the beginning is moved, too."""
    early = binary(world, A)
    world.relay.handover = hand = Moving(world.relay)
    hand.answer(f"move {A}".encode())
    assert early.closes == MOVED
    world.relay.handover = None
    late = binary(world, B)
    world.relay.handover = hand
    assert not hand.done.called
    assert hand.begin(0.0).called
    assert late.closes == MOVED


def test_cancelled(world: World) -> None:
    """After a cancel no group moves by itself."""
    peers = [binary(world, server_id) for server_id in (A, B)]
    hand = moving(world, 8.0)
    hand.cancel()
    world.clock.advance(100.0)
    assert sum(len(peer.closes) for peer in peers) == 1


def test_what_is_asked_before_it_begins(world: World) -> None:
    """Groups that are asked for move at once, and the others when it begins, those that came meanwhile included."""
    peers = {server_id: binary(world, server_id) for server_id in (A, B)}
    world.relay.handover = hand = Moving(world.relay, ["expected"])
    assert result(hand.answer(f"move {A}".encode())) == b""
    assert peers[A].closes == MOVED
    world.clock.advance(100.0)
    assert not peers[B].closes
    assert not hand.done.called
    assert json.loads(result(hand.answer(b"held")) or b"") == sorted([A, B, "expected"])
    assert hand.begin(0.0) is hand.done
    assert peers[B].closes == MOVED
    assert hand.done.called


def test_it_begins_twice(world: World) -> None:
    """The second beginning takes the place of the first one."""
    peers = [binary(world, str(number)) for number in range(4)]
    hand = moving(world, 3600.0)
    hand.begin(2.0)
    world.clock.pump([0.5] * 4)
    assert [peer.closes for peer in peers] == [MOVED] * 4
