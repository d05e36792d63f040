"""Moving keys to other instances."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.task import Clock

from pyryrelay.cluster.directory.members import Listed, Load, Member
from pyryrelay.cluster.operating.rebalance import Rebalance, share_of


class Here:
    """What is held here. A key that is in ``faithful`` comes back at once."""

    def __init__(self, count: int) -> None:
        self.keys = {f"k{number}": None for number in range(count)}
        self.faithful: set[str] = set()
        self.moves: list[str] = []

    def held_keys(self) -> Collection[str]:
        """Return all."""
        return self.keys.keys()

    def holds(self, key: str) -> bool:
        """Tell whether a key is here."""
        return key in self.keys

    def move(self, key: str) -> None:
        """Close its peers."""
        self.moves.append(key)
        if key not in self.faithful:
            self.keys.pop(key, None)


def rebalance(here: Here, astray: Collection[str] = ()) -> tuple[Rebalance, Clock]:
    """Return one that takes keys in their order, and its clock."""
    clock = Clock()
    return Rebalance(here, astray.__contains__, clock.seconds, clock.callLater, list.reverse), clock


def test_the_share_of_each() -> None:
    """It is the mean of those that live, rounded up; a lease that is over or forged does not count."""
    member = Member("a:1", "b", "a:1")
    listed = [Listed(member, 3.0, True, Load(10)), Listed(member, 3.0, True, Load(1))]
    assert share_of(listed) == 6
    assert share_of([*listed, Listed(member, -1.0, True, Load(90)), Listed(member, 3.0, False, Load(90))]) == 6
    assert share_of([]) == 0


def test_those_that_stray_go_first() -> None:
    """The balancer sends their peers to another instance already."""
    here = Here(6)
    moving, _ = rebalance(here, {"k3", "k4"})
    assert set(moving.plan(4)) == {"k3", "k4"}
    assert set(moving.plan(5)) < {"k3", "k4"}
    assert set(moving.plan(3)) > {"k3", "k4"}
    assert moving.plan(6) == moving.plan(7) == []
    assert len(moving.plan(0)) == 6


def test_keys_move_one_after_the_other() -> None:
    """Evenly within the time, and the last one before it ends."""
    here = Here(10)
    moving, clock = rebalance(here)
    moving.start(moving.plan(5), 10.0)
    counts = [len(here.moves)]
    for _ in range(4):
        clock.advance(2.0)
        counts.append(len(here.moves))
    assert counts == [1, 2, 3, 4, 5]
    assert not moving.is_running
    assert clock.getDelayedCalls() == []
    assert moving.state() == {"keys": 5, "to_move": 0, "moved": 5, "back": 0, "left_s": 0.0}


def test_many_keys_in_a_short_time() -> None:
    """A step moves as many as are due; without any time all of them at once."""
    here = Here(1000)
    moving, clock = rebalance(here)
    moving.start(moving.plan(0), 1.0)
    clock.pump([0.1] * 5)
    assert 400 < len(here.moves) < 600
    assert 0.0 < moving.state()["left_s"] <= 0.6
    clock.pump([0.1] * 6)
    assert len(here.moves) == 1000
    here = Here(3)
    moving, clock = rebalance(here)
    moving.start(moving.plan(0), 0.0)
    assert (len(here.moves), moving.is_running) == (3, False)


def test_keys_that_come_back() -> None:
    """They are counted."""
    here = Here(4)
    here.faithful = {"k1"}
    moving, _ = rebalance(here, {"k1"})
    moving.start(moving.plan(2), 0.0)
    assert moving.state() == {"keys": 3, "to_move": 0, "moved": 2, "back": 1, "left_s": 0.0}


def test_stopping() -> None:
    """What has moved has moved, and the rest stays."""
    here = Here(10)
    moving, clock = rebalance(here)
    moving.start(moving.plan(0), 10.0)
    moving.stop()
    clock.advance(20.0)
    assert (len(here.moves), moving.is_running, moving.state()["to_move"]) == (1, False, 0)
    moving.start([], 10.0)
    assert not moving.is_running
