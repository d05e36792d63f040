"""A placement that answers what the test wants, and a carrier that keeps what it gets."""

from __future__ import annotations

from dataclasses import replace

from tests.support.harness import World
from twisted.internet.defer import Deferred

from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.placement import Attempt, Place
from pyryrelay.protocol import HttpRefusal

KEY = "the-key"


class Carrying:
    """A carrier that keeps what it gets, unless it refuses or fails."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.refusal: HttpRefusal | None = None
        self.error: Exception | None = None

    def carry(self, attempt: Attempt) -> None:
        """See `pyryrelay.http.placement.Carrier`."""
        if self.error is not None:
            raise self.error
        if self.refusal is not None:
            attempt.refuse(self.refusal)
        else:
            self.attempts.append(attempt)


class Answering:
    """A placement with one answer, at once or later; it records what it was asked."""

    def __init__(self, answer: Place | Deferred[Place]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        self.error: Exception | None = None

    def place(self, route: str, key: str) -> Place | Deferred[Place]:
        """See `pyryrelay.http.placement.Placement`."""
        self.asked.append((route, key))
        if self.error is not None:
            raise self.error
        return self.answer


def placed_by(world: World, answer: Place | Deferred[Place]) -> Answering:
    """Have the listeners of a world that are opened from now on ask a placement, and return that."""
    placement = Answering(answer)
    world.application.key_of = lambda request: KEY
    world.context = replace(world.context, placement=placement)
    world.http_factory = HttpFactory(world.context)
    return placement
