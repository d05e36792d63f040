"""Asking who is in the cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.cluster.directory.test_roster import ME, lease
from tests.support.capture import Captured
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock

from pyryrelay.cluster.directory.members import Listed, Member
from pyryrelay.cluster.directory.roll_call import MOST_LINES, RollCall
from pyryrelay.cluster.redis.interface import DownError


class Asked:
    """A roll call whose directory lists what a test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.listed: Any = None
        directory: Any = SimpleNamespace(member=Member(ME, "b", ME), members=lambda: self.listed)
        self.roll_call = RollCall(directory, self.clock.seconds, lambda: 100.0)

    def ask(self, *listed: Listed) -> None:
        """Ask, and hear these."""
        self.listed = succeed(listed)
        self.roll_call.ask()
        self.clock.advance(5.0)


def test_every_change_has_a_line(log: Captured) -> None:
    """It names the instance, and how long it was away or what it held."""
    asked = Asked()
    asked.ask(lease("a:1"), lease("b:1"))
    assert log.texts == []
    asked.ask(lease("a:1"), lease("b:1", -1.0, has_left=True), lease("c:1"))
    asked.ask(lease("a:1", -4.0), lease("b:1"), lease("c:1", boot="x"))
    assert log.texts == [
        "instance b:1 has left the cluster in order",
        "instance c:1 has joined the cluster",
        "instance b:1 of the cluster is back, after 6.0 s without",
        "instance c:1 of the cluster was started again",
        "instance a:1 of the cluster is gone: its lease has been over for 4.0 s, and it held 3 keys; it has died or "
        "hangs, or cannot reach the server",
    ]


def test_a_server_that_is_away_changes_nothing(log: Captured) -> None:
    """What was heard last is still known; a fault of the relay's own is not hidden."""
    asked = Asked()
    asked.ask(lease("a:1"))
    asked.listed = fail(DownError("away"))
    asked.roll_call.ask()
    assert len(asked.roll_call.roster.rows(asked.clock.seconds())) == 1
    assert log.texts == []
    asked.listed = fail(ValueError("a fault"))
    found = asked.roll_call.ask()
    with pytest.raises(ValueError, match="a fault"):
        found.result.raiseException()  # type: ignore[attr-defined]
    found.addErrback(lambda failure: None)


def test_a_crowd_has_few_lines(log: Captured) -> None:
    """A server that comes back, or someone who writes to it, fills no log."""
    asked = Asked()
    asked.ask()
    asked.ask(*(lease(f"h{number}:1") for number in range(100)))
    assert len(log.texts) == MOST_LINES + 1
    assert log.texts[-1] == "80 more instances of the cluster have come or gone: see pyryrelay cluster"
