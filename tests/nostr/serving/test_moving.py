"""Connections that move to the process that takes over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.nostr_relay import CAROL, Client, World, as_dict, event
from twisted.internet.task import Clock

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.serving.moving import FEW_PEERS, PEERS_PER_STEP, STEP_S, Moving

AWAY = (1001, "shutting down")


class Movers:
    """Connections that note when they have their turn."""

    def __init__(self, count: int, over_s: float) -> None:
        self.clock = Clock()
        self.left_at_s: list[float] = []
        self.over_at_s: list[float] = []
        self.moving = Moving([self] * count, over_s, self.clock.callLater, self._over)
        self.moving.begin()

    def leave(self) -> None:
        self.left_at_s.append(self.clock.seconds())

    def stay(self) -> None:
        raise AssertionError

    def _over(self) -> None:
        self.over_at_s.append(self.clock.seconds())

    def pass_s(self, seconds: float) -> None:
        """Let time pass in steps."""
        self.clock.pump([STEP_S + 1e-9] * round(seconds / STEP_S))


@pytest.mark.parametrize("count", [0, 1, FEW_PEERS])
def test_few_have_their_turn_at_once(count: int) -> None:
    """There is nothing to spread."""
    movers = Movers(count, 3.0)
    assert movers.left_at_s == [0.0] * count
    assert movers.over_at_s == [0.0]
    assert movers.moving.is_over


@pytest.mark.parametrize(("count", "over_s", "takes_s"), [(1000, 3.0, 1.0), (20_000, 3.0, 3.0), (20_000, 0.0, 0.0)])
def test_many_have_their_turns_in_steps(count: int, over_s: float, takes_s: float) -> None:
    """A thousand in a second, and faster if the time is too short for that."""
    movers = Movers(count, over_s)
    assert movers.moving.is_over == (takes_s == 0)
    movers.pass_s(5.0)
    assert len(movers.left_at_s) == count
    assert movers.over_at_s == [movers.left_at_s[-1]]
    assert movers.left_at_s[-1] == pytest.approx(takes_s, abs=2 * STEP_S)
    assert movers.left_at_s.count(0.0) == pytest.approx(max(PEERS_PER_STEP, count * STEP_S / max(takes_s, STEP_S)), 0.1)


def test_a_cancelled_move() -> None:
    """The rest has no turn, and nothing is over."""
    movers = Movers(1000, 3.0)
    gone = len(movers.left_at_s)
    movers.moving.cancel()
    movers.pass_s(5.0)
    assert len(movers.left_at_s) == gone < 1000
    assert movers.over_at_s == []


# Connections of a relay


def ok(one: Event) -> list[object]:
    return ["OK", one.id, True, ""]


def slow() -> tuple[World, Client]:
    """Return a world whose verifiers and writer wait for the test, and a client."""
    world = World()
    world.verifiers.is_prompt = world.writer.is_prompt = False
    return world, world.client()


def moving(world: World) -> list[bool]:
    """Move all connections; the result appears in the list when that is over."""
    done: list[bool] = []
    world.relay.move_away(3.0).addCallback(done.append)
    return done


def test_a_connection_is_closed_once_its_events_are_answered() -> None:
    """Nothing is refused, and nothing more is read; others are closed meanwhile."""
    world, client = slow()
    idle = world.client()
    written, verified = event("1"), event("2")
    client.publish(written)
    world.verifiers.answer()
    client.publish(verified)
    done = moving(world)
    assert idle.peer.closed_with == AWAY
    assert client.publish(event("3")) == []
    assert not client.is_read
    world.writer.commit()
    assert client.take() == [ok(written)]
    assert client.peer.close_code is None
    assert done == []
    world.verifiers.answer()
    world.writer.commit()
    assert client.take() == [ok(verified)]
    assert client.peer.closed_with == AWAY
    assert done == [True]
    assert len(world.writer.stored) == 2
    assert world.relay.is_ending


def test_events_of_connections_that_have_left_are_waited_for() -> None:
    """They are stored before the move is over."""
    world, client = slow()
    client.publish(event())
    client.leave()
    done = moving(world)
    world.verifiers.answer()
    assert done == []
    world.writer.commit()
    assert done == [True]


def test_all_are_served_until_their_turn() -> None:
    """Publishing, live events and new subscriptions go on."""
    world = World()
    clients = [world.client() for _ in range(300)]
    clients[0].ask(["REQ", "s", {"limit": 0}])
    done = moving(world)
    first, last = clients[0], clients[-1]
    assert (first.peer.close_code, last.peer.close_code) == (None, 1001)
    one = event("meanwhile")
    assert clients[1].publish(one) == [ok(one)]
    assert first.take() == [["EVENT", "s", as_dict(one)]]
    world.clock.pump([STEP_S] * 10)
    assert done == [True]
    assert first.peer.closed_with == AWAY


def test_one_that_stays_goes_on_with_what_it_has_sent() -> None:
    """Messages that came meanwhile are processed in their order."""
    world, client = slow()
    first, second, third = (event(text) for text in "123")
    client.publish(first)
    done = moving(world)
    client.publish(second, third)
    assert world.relay.stay()
    assert not world.relay.stay()
    assert done == [False]
    assert client.is_read
    for _ in range(2):
        world.verifiers.answer()
    for _ in range(2):
        world.writer.commit()
    assert client.take() == [ok(first), ok(second), ok(third)]
    assert client.peer.close_code is None
    assert client.publish(event("4")) == []
    assert not world.relay.is_ending


def test_the_end_during_a_move() -> None:
    """What the writer does not have yet is refused then, and both are over."""
    world, client = slow()
    one = event()
    client.publish(one)
    done, drained = moving(world), list[None]()
    world.relay.drain().addCallback(drained.append)
    assert client.take() == [["OK", one.id, False, "error: the relay is shutting down"]]
    assert (done, drained) == ([True], [None])
    assert client.peer.closed_with == AWAY


def test_an_ephemeral_event_that_others_are_asked_about() -> None:
    """Its publisher is answered before the connection is closed."""
    asked: list[Callable[[bool], None]] = []

    class Others:
        def ask(self, json: bytes, done: Callable[[bool], None]) -> bool:
            asked.append(done)
            return True

        def set_behind(self, is_behind: bool) -> None:
            raise AssertionError

    world = World()
    world.relay.join(Others())  # type: ignore[arg-type]
    client = world.client()
    one = event(kind=20001, author=CAROL)
    assert client.publish(one) == []
    done = moving(world)
    assert client.peer.close_code is None
    assert done == []
    asked[0](True)
    assert client.take() == [ok(one)]
    assert client.peer.closed_with == AWAY
    assert done == [True]
