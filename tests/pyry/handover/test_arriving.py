"""Peers that arrive while the process before still has some: they wait as long as they must, and meet."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.support.pyry import A, B, FakePeer, World, request
from twisted.internet.defer import Deferred

from pyryrelay.protocol import Session
from pyryrelay.pyry.handover.arriving import HOLD_S, Arriving
from pyryrelay.pyry.handover.moving import FREE, HELD


class Before:
    """A predecessor whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[bytes | None]]] = []
        self.released: Deferred[None] = Deferred()

    def ask(self, question: bytes) -> Deferred[bytes | None]:
        answer = Deferred[bytes | None]()
        self.asked.append((question.decode(), answer))
        return answer

    def when_released(self) -> Deferred[None]:
        return self.released

    def answer(self, question: str, answer: bytes | None) -> None:
        """Answer the only question of that text."""
        (found,) = [one for one in self.asked if one[0] == question]
        self.asked.remove(found)
        found[1].callback(answer)


class Place:
    """A world that succeeds another process, which holds some server-ids."""

    def __init__(self, *held: str) -> None:
        self.world = World()
        self.before = Before()
        self.ends: list[None] = []
        self.arriving = Arriving(self.world.relay, self.before, self._end)
        self.world.relay.handover = self.arriving
        if held:
            self.before.answer("held", json.dumps(held).encode())

    def _end(self) -> None:
        self.ends.append(None)

    def binary(self, server_id: str = A) -> tuple[FakePeer, Session]:
        peer = FakePeer()
        fields = {"x-pyrycode-server": server_id, "x-pyrycode-version": "1", "user-agent": "x"}
        return peer, self.world.binaries.opened(peer, request(fields))

    def phone(self, server_id: str = A) -> tuple[FakePeer, Session]:
        peer = FakePeer()
        fields = {"x-pyrycode-server": server_id, "user-agent": "x"}
        return peer, self.world.phones.opened(peer, request(fields, "/v1/client"))


def frames(peer: FakePeer) -> Sequence[object]:
    """Return the frames of the envelopes that a binary got."""
    return [json.loads(message)["frame"] for message in peer.sent]


def test_server_ids_that_are_not_there() -> None:
    """Nobody waits for a server-id that the predecessor does not have: a phone without a binary gets 4404."""
    place = Place(B)
    binary, _ = place.binary()
    phone, session = place.phone()
    assert session.messages([(b'"hello"', False)]) is None
    assert frames(binary) == ["hello"]
    assert not phone.closes
    assert place.phone("nobody")[0].closes == [(4404, "no server with that id")]


def test_nobody_is_decided_about_before_the_list_is_known() -> None:
    """Until the predecessor has said what it holds, everybody waits."""
    place = Place()
    binary, _ = place.binary()
    phone, session = place.phone()
    waiting = session.messages([(b'"early"', False)])
    assert waiting is not None
    done: list[object] = []
    waiting.addCallback(done.append)
    assert done == []
    place.before.answer("held", b"[]")
    assert done == [None]
    assert frames(binary) == ["early"]
    assert not phone.closes


def test_a_phone_waits_for_its_binary() -> None:
    """A phone whose binary is there has its group moved, and is registered when the binary has arrived."""
    place = Place(A)
    phone, session = place.phone()
    waiting = session.messages([(b'"early"', False)])
    place.before.answer(f"move {A}", b"")
    binary, _ = place.binary()
    place.before.answer(f"claim {A}", FREE)
    assert waiting is not None
    assert waiting.called
    assert frames(binary) == ["early"]
    assert not phone.closes
    place.world.clock.advance(HOLD_S)
    assert not phone.closes


def test_a_binary_that_does_not_come() -> None:
    """The phone is told the truth after a while, and one that has left is forgotten."""
    place = Place(A)
    phone, _ = place.phone()
    gone, session = place.phone()
    session.closed(1006, "")
    place.world.clock.advance(HOLD_S)
    assert phone.closes == [(4404, "no server with that id")]
    assert not gone.closes


def test_a_rival_of_a_binary_that_is_there() -> None:
    """A second binary is refused like one in the same process."""
    place = Place(A)
    rival, session = place.binary()
    place.before.answer(f"claim {A}", HELD)
    assert rival.closes == [(4409, "server-id already claimed")]
    session.closed(4409, "")


def test_a_predecessor_that_dies() -> None:
    """Its answers are those of a process that holds nothing."""
    place = Place(A)
    binary, _ = place.binary()
    place.before.answer(f"claim {A}", None)
    place.phone()[1].messages([(b"1", False)])
    assert frames(binary) == [1]


def test_the_end() -> None:
    """Some time after the predecessor is done, peers are admitted as usual; who waits then connects again."""
    place = Place(A)
    place.before.released.callback(None)
    place.world.clock.advance(HOLD_S - 1)
    assert place.ends == []
    phone, _ = place.phone()
    place.world.clock.advance(1)
    assert place.ends == [None]
    place.arriving.stop()
    assert phone.closes == [(1001, "shutting down")]


def test_a_frame_that_fails_costs_one_peer() -> None:
    """What a session raises while it catches up reaches the transport by the Deferred, which closes that peer."""
    place = Place(A)
    _, session = place.phone()
    waiting = session.messages([(None, False)])  # type: ignore[list-item]
    failures: list[object] = []
    assert waiting is not None
    waiting.addErrback(failures.append)
    binary, _ = place.binary()
    place.before.answer(f"claim {A}", FREE)
    assert len(failures) == 1
    assert not binary.closes
