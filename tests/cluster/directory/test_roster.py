"""The instances that a process knows, and what has become of them."""

from __future__ import annotations

from typing import Any

import pytest

from pyryrelay.cluster.directory import roster as module
from pyryrelay.cluster.directory.members import Listed, Load, Member
from pyryrelay.cluster.directory.roster import (
    FORGET_LEFT_S,
    FORGET_OVER_S,
    GRACE_S,
    SETTLED_S,
    Kind,
    Roster,
    State,
)

ME = "me:1"


def lease(name: str, left_s: float = 6.0, boot: str = "b", **others: Any) -> Listed:
    """Return a lease that is listed."""
    return Listed(Member(name, boot, name), left_s, **{"is_genuine": True, "load": Load(3), **others})


class Heard:
    """A roster that hears what a test says, and the names of what has changed."""

    def __init__(self) -> None:
        self.roster = Roster(ME)
        self.now = 1000.0

    def hear(self, *listed: Listed, after_s: float = 5.0, used_s: float = 100.0) -> list[tuple[str, str, float]]:
        """Hear the next list; return the changes."""
        self.now += after_s
        found = self.roster.hear(listed, self.now, used_s)
        return [(change.kind.value, change.listed.member.name, change.seconds) for change in found]

    def states(self) -> dict[str, str]:
        """Return the state of each instance."""
        return {row.listed.member.name: row.state.value for row in self.roster.rows(self.now)}


def test_who_is_there_at_the_start_is_no_news() -> None:
    """Those that come later are; this instance itself never is."""
    heard = Heard()
    assert heard.roster.rows(0.0) == []
    assert heard.hear(lease("a:1"), lease("b:1", -50.0), lease("c:1", -50.0, has_left=True)) == []
    assert heard.states() == {"a:1": "up", "b:1": "over", "c:1": "left"}
    assert heard.hear(lease("a:1"), lease(ME), lease("d:1")) == [("joined", "d:1", 0.0)]
    assert heard.hear(lease(ME, -100.0), lease("d:1"), lease("a:1")) == []


def test_an_instance_that_dies() -> None:
    """It is told once, a moment after its lease is over, with what it held, and so is that it is back."""
    heard = Heard()
    heard.hear(lease("a:1"))
    assert heard.hear(lease("a:1", 1.0)) == []
    assert heard.hear(lease("a:1", 0.5 - GRACE_S)) == []
    assert heard.states() == {"a:1": "over"}
    assert heard.hear(lease("a:1", -GRACE_S)) == [("gone", "a:1", GRACE_S)]
    assert heard.hear(lease("a:1", -10.0)) == []
    assert heard.hear(lease("a:1", boot="c")) == [("back", "a:1", 15.0)]


def test_an_instance_that_leaves() -> None:
    """It is told at once that it did so in order."""
    heard = Heard()
    heard.hear(lease("a:1"))
    assert heard.hear(lease("a:1", -2.0, has_left=True)) == [("left", "a:1", 2.0)]
    assert heard.hear(lease("a:1", -7.0, has_left=True)) == []
    assert heard.hear(lease("a:1", boot="c")) == [("back", "a:1", 12.0)]


def test_an_instance_that_is_started_again_in_time() -> None:
    """Its lease was never over, but its boot id is another one."""
    heard = Heard()
    heard.hear(lease("a:1"))
    assert heard.hear(lease("a:1", boot="c")) == [("restarted", "a:1", 0.0)]
    assert heard.hear(lease("a:1", boot="c")) == []


def test_who_is_not_listed_any_more_is_gone() -> None:
    """The server came back empty, or the lease was deleted without a trace; what it held last stays known."""
    heard = Heard()
    heard.hear(lease("a:1"), lease("b:1"))
    assert heard.hear(lease("b:1")) == []
    assert heard.hear(lease("b:1")) == [("gone", "a:1", 4.0)]
    rows = heard.roster.rows(heard.now)
    assert [(row.listed.member.name, row.state, row.listed.load.keys) for row in rows] == [
        ("a:1", State.OVER, 3),
        ("b:1", State.UP, 3),
    ]


def test_after_an_outage_nobody_is_gone_at_once() -> None:
    """The others need a moment to renew their leases, as this instance does."""
    heard = Heard()
    heard.hear(lease("a:1"), lease("b:1"))
    assert heard.hear(lease("a:1", -60.0), after_s=60.0, used_s=0.0) == []
    assert heard.hear(lease("a:1"), after_s=1.0, used_s=1.0) == []
    assert heard.hear(lease("a:1"), used_s=SETTLED_S) == [("gone", "b:1", 60.0)]


def test_who_is_forged_is_shown_and_not_remembered() -> None:
    """Nobody without the secret adds lines to the log, or fills memory, or says who has left."""
    heard = Heard()
    heard.hear(lease("a:1"))
    assert heard.hear(lease("a:1"), lease("f:1", is_genuine=False)) == []
    assert heard.states() == {"a:1": "up", "f:1": "up"}
    assert heard.hear(lease("a:1")) == []
    assert heard.states() == {"a:1": "up"}


def test_instances_are_forgotten() -> None:
    """Those that have left are of less interest than those that died."""
    heard = Heard()
    heard.hear(lease("a:1", -1.0, has_left=True), lease("b:1", -1.0), lease("c:1"))
    heard.hear(lease("c:1"), after_s=FORGET_LEFT_S)
    assert set(heard.states()) == {"b:1", "c:1"}
    heard.hear(lease("c:1"), after_s=FORGET_OVER_S)
    assert set(heard.states()) == {"c:1"}


def test_there_are_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have been gone for longest are forgotten first."""
    monkeypatch.setattr(module, "MOST", 2)
    heard = Heard()
    heard.hear(lease("a:1", -50.0), lease("b:1"), lease("c:1", -5.0))
    assert set(heard.states()) == {"b:1", "c:1"}


def test_every_kind_of_change_has_a_name() -> None:
    """They are words of the log."""
    assert {kind.value for kind in Kind} == {"joined", "restarted", "left", "gone", "back"}
