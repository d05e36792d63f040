"""Figures of the store: asked for every 10 s, never twice at once, and kept when the store cannot tell."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pyryrelay.nostr.observe.figures import INTERVAL_S, StoreFigures

FIGURES: dict[str, Any] = {
    "events": {"regular": 5, "replaceable": 2, "addressable": 1},
    "database_bytes": 4096,
    "version": 1,
    "last_seq": 9,
}


class Asked:
    """A store that is asked for figures, and a log."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.questions: list[Deferred[Any]] = []
        self.opened: list[tuple[int, int, int]] = []
        self.figures = StoreFigures(self.ask, self.clock.callLater, self)

    def ask(self) -> Deferred[Any]:
        """Take a question."""
        self.questions.append(Deferred())
        return self.questions[-1]

    def store_opened(self, events: int, size_bytes: int, version: int) -> None:
        """Take note of the opening."""
        self.opened.append((events, size_bytes, version))


@pytest.fixture
def asked() -> Asked:
    """A store that has not been asked anything."""
    return Asked()


def test_all_classes_exist_before_the_first_answer(asked: Asked) -> None:
    """Before the store has answered there are zeros, for each class that is stored."""
    assert asked.figures.events == {"regular": 0, "replaceable": 0, "addressable": 0}
    assert asked.figures.database_bytes == 0
    assert asked.questions == []


def test_the_opening_is_logged_once_for_each_process(asked: Asked) -> None:
    """The first answer after the store was opened is logged, and those after it are not."""
    asked.figures.ready()
    asked.questions[0].callback(FIGURES)
    asked.clock.advance(INTERVAL_S)
    asked.questions[1].callback(FIGURES | {"events": {"regular": 6}})
    assert asked.opened == [(8, 4096, 1)]
    assert asked.figures.events == {"regular": 6, "replaceable": 0, "addressable": 0}
    asked.figures.ready()
    asked.questions[2].callback(FIGURES)
    assert asked.opened == [(8, 4096, 1)] * 2


def test_old_figures_stay_when_the_store_cannot_tell(asked: Asked) -> None:
    """A failure changes nothing, and the store is asked again."""
    asked.figures.ready()
    asked.questions[0].callback(FIGURES)
    asked.clock.advance(INTERVAL_S)
    asked.questions[1].errback(RuntimeError("locked"))
    assert asked.figures.database_bytes == 4096
    asked.clock.advance(INTERVAL_S)
    assert len(asked.questions) == 3


def test_a_process_that_starts_again_is_asked_once(asked: Asked) -> None:
    """However often the store is opened anew, one question is asked in an interval."""
    for _ in range(3):
        asked.figures.ready()
    asked.clock.advance(INTERVAL_S)
    assert len(asked.questions) == 4


def test_nothing_is_asked_after_the_end(asked: Asked) -> None:
    """After `stop` no timer is left."""
    asked.figures.stop()
    asked.figures.ready()
    assert asked.questions == []
    asked.figures.stop()
    assert asked.clock.getDelayedCalls() == []
