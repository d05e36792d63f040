"""Which instance holds a key, as far as it was asked lately."""

from __future__ import annotations

import pytest

from pyryrelay.cluster.directory import routes as module
from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.directory.routes import LIFE_S, Routes

MEMBER = Member("a:1", "boot", "a:1")


def test_an_answer_is_fresh_for_a_while() -> None:
    """An old answer is still known, for when nobody can be asked."""
    routes = Routes()
    routes.note("x", MEMBER, 10.0)
    assert routes.fresh("x", 10.0 + LIFE_S - 0.1) == MEMBER
    assert routes.fresh("x", 10.0 + LIFE_S) is None
    assert routes.last("x") == MEMBER
    routes.forget("x")
    routes.forget("x")
    assert routes.last("x") is None


def test_the_oldest_answer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of answers is bounded; asking again makes one young."""
    monkeypatch.setattr(module, "MAX_ROUTES", 2)
    routes = Routes()
    for key in ("x", "y", "x", "z"):
        routes.note(key, MEMBER, 0.0)
    assert [routes.last(key) for key in ("x", "y", "z")] == [MEMBER, None, MEMBER]
    assert len(routes) == 2
