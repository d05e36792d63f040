"""The order of a hand-over, with a successor and a service that record what is done to them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.capture import captured
from twisted.internet.defer import Deferred, succeed

from pyryrelay.admin.api import UpgradeOutcome
from pyryrelay.handover.successor import Command
from pyryrelay.listen.inherited import Inherited
from pyryrelay.start import hand_over
from pyryrelay.start.hand_over import HandOver

COMMAND = Command((), "/", {})


class Service:
    """A service, and its own transfer."""

    workers = 1
    seed = 0

    def __init__(self) -> None:
        self.done: list[object] = []
        self.refusal: str | None = None
        self.moved: Deferred[None] = Deferred()
        self.protocols: dict[str, Any] = {"pyry": self}

    @property
    def transfer(self) -> Any:
        return self

    def sockets(self) -> Inherited:
        return Inherited()

    def give(self, kept: frozenset[str]) -> Deferred[list[object]]:
        self.done.append(("give", set(kept)))
        return succeed([["192.0.2.7/32", 1.0, 1, 0.5]])

    def move_peers(self, over_s: float, released: Any) -> Deferred[None]:
        self.done.append(("move", over_s))
        return self.moved

    def take_back(self) -> None:
        self.done.append("take back")

    def answer(self, protocol: str, question: bytes) -> bytes | None:
        return question if protocol in self.protocols else None

    def why_not(self) -> str | None:
        return self.refusal

    def conflicts(self) -> tuple[str, ...]:
        return ()

    def drain_over_s(self) -> float:
        return 30.0

    def give_up_identity(self, pid: int) -> None:
        self.done.append(("give up identity", pid))

    def take_back_identity(self) -> None:
        self.done.append("take back identity")

    def end(self) -> None:
        self.done.append("end")


class FakeSuccessor:
    """Takes the place of a `Successor`."""

    pid, version = 8, "26.12.0"

    def __init__(self, reactor: object, command: Command, greeting: object, events: HandOver) -> None:
        self.said: list[object] = []
        self.events = events

    def start(self) -> None:
        self.said.append("start")

    def take(self, **fields: object) -> None:
        self.said.append(("take", fields))

    def released(self, protocol: str) -> None:
        self.said.append(("released", protocol))

    def cancel(self) -> None:
        self.said.append("cancel")

    def leave(self) -> None:
        self.said.append("leave")


class Place:
    """A process that hands over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.successors: list[FakeSuccessor] = []
        self.service = Service()

        def made(*arguments: Any) -> FakeSuccessor:
            self.successors.append(FakeSuccessor(*arguments))
            return self.successors[-1]

        monkeypatch.setattr(hand_over, "Successor", made)
        self.hand_over = HandOver(None, self.service, COMMAND)
        self.outcomes: list[UpgradeOutcome] = []

    def begin(self) -> FakeSuccessor:
        self.hand_over.begin().addCallback(self.outcomes.append)
        return self.successors[-1]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return a process that could hand over."""
    return Place(monkeypatch)


def test_the_order(place: Place) -> None:
    """Nothing is given before the successor is ready, nobody moves before it serves, and the end comes last."""
    with captured() as log:
        successor = place.begin()
        assert place.service.done == []
        assert place.hand_over.is_on
        assert not place.hand_over.is_done
        place.hand_over.reloaded()
        place.hand_over.ready(frozenset({"a"}))
        assert place.service.done == [("give", {"a"}), ("give up identity", 8)]
        row = ["192.0.2.7/32", 1.0, 1, 0.5]
        assert successor.said == ["start", ("take", {"jail": [row], "reload": True})]
        assert place.outcomes == []
        place.hand_over.serving()
        assert place.outcomes == [UpgradeOutcome(8, "26.12.0", 30.0)]
        assert place.service.done[2:] == [("move", 30.0)]
        place.service.moved.callback(None)
        assert place.service.done[3:] == ["end"]
    assert any("process 8, version 26.12.0, has taken over" in text for text in log.texts)
    assert place.hand_over.asked("pyry", b"held") == b"held"
    assert place.hand_over.asked("other", b"held") is None


def test_a_successor_that_fails(place: Place) -> None:
    """Nothing has changed, one line says why, and the next attempt is free."""
    with captured() as log:
        place.begin()
        place.hand_over.failed("it ended")
    assert place.outcomes == [UpgradeOutcome(error="the new process could not take over: it ended")]
    assert place.service.done == []
    assert log.texts[-1] == "upgrade failed: it ended; this process goes on"
    with captured():
        place.begin()
    assert len(place.successors) == 2


@pytest.mark.parametrize("refusal", ["this process ends", None])
def test_refusals(place: Place, refusal: str | None) -> None:
    """A process that cannot hand over, or does so already, says why and starts nothing."""
    with captured():
        if refusal is None:
            place.begin()
        place.service.refusal = refusal
        place.hand_over.begin().addCallback(place.outcomes.append)
    assert place.outcomes[-1].error == refusal or place.outcomes[-1].error == "process 8 is already taking over"
    assert len(place.successors) == (refusal is None)


@pytest.mark.parametrize("is_serving", [False, True])
def test_a_successor_that_dies(place: Place, is_serving: bool) -> None:
    """Everything is taken back, and a move that ends later ends nothing."""
    with captured():
        place.begin()
        place.hand_over.ready(frozenset())
        if is_serving:
            place.hand_over.serving()
        place.hand_over.lost()
        assert place.service.done[-2:] == ["take back identity", "take back"]
        place.service.moved.callback(None)
    assert "end" not in place.service.done
    assert not place.hand_over.is_on
    assert (place.outcomes[0].error is None) == is_serving


@pytest.mark.parametrize(("steps", "word"), [(0, "cancel"), (1, "cancel"), (2, "leave")])
def test_this_process_is_told_to_end(place: Place, steps: int, word: str) -> None:
    """A successor that has not begun ends, too; one that has is left alone."""
    with captured():
        successor = place.begin()
        if steps:
            place.hand_over.ready(frozenset())
        if steps > 1:
            place.hand_over.serving()
        place.hand_over.stop()
        place.hand_over.stop()
    assert successor.said[-1] == word
    assert len(place.outcomes) == 1


def test_the_successor_is_told_to_end(place: Place) -> None:
    """Before it is ready that is a failure; later this process ends, too."""
    with captured():
        place.begin()
        place.hand_over.ending()
        assert place.service.done == []
        place.begin()
        place.hand_over.ready(frozenset())
        place.hand_over.serving()
        place.hand_over.ending()
    assert place.service.done[-1] == "end"
