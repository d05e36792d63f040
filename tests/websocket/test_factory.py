"""The factory of one application's connections: it builds, configures and ends them."""

from __future__ import annotations

from tests.support.frames import BINARY, close_of, frame
from tests.support.harness import ALICE, BOB, PATH, World, assert_closing, client_of
from twisted.internet.task import Clock

from pyryrelay.guard import Quota, ThrottlePolicy
from pyryrelay.protocol import Request
from pyryrelay.protocol_options import RoutePolicy
from pyryrelay.websocket.factory import SHUTTING_DOWN, own_queue

FRAMES = ThrottlePolicy(frames=Quota.parse("1/s burst 5"))


def test_it_builds_connections_that_are_not_open_yet() -> None:
    """A connection is built before its upgrade, and counts as open only after it."""
    world = World()
    connection = world.factory.build(Request(PATH, {}, client_of(ALICE)))
    assert (connection.context, connection.route) == (world.factory.context, world.application.name)
    assert not world.factory.open
    assert world.factory.application is world.application


def test_the_policy_of_the_start_is_enforced() -> None:
    """Quotas and the size of a message come from the policy that the factory was built with."""
    world = World(throttle=FRAMES, max_message_bytes=10)
    connection, session = world.upgraded()
    connection.feed(frame(bytes(10), BINARY) * 7)
    assert not connection.is_read()
    other, _ = world.upgraded(BOB)
    other.feed(frame(bytes(11), BINARY))
    assert [close_of(found)[0] for found in other.frames()] == [1009]
    assert len(session.received) == 7


def test_quotas_are_configured_while_connections_are_open() -> None:
    """`configure` counts for connections that are open and for those that come."""
    world = World()
    connection, _ = world.upgraded()
    world.factory.configure(RoutePolicy(throttle=FRAMES))
    later, _ = world.upgraded(BOB)
    for each in (connection, later):
        each.feed(frame(b"a") * 7)
        assert not each.is_read()


def test_the_same_quotas_leave_connections_as_they_are() -> None:
    """A reload that does not change the quotas gives no connection full quotas again."""
    world = World(throttle=FRAMES)
    connection, _ = world.upgraded()
    connection.feed(frame(b"a") * 7)
    world.factory.configure(RoutePolicy(throttle=ThrottlePolicy(frames=Quota.parse("1/s burst 5"))))
    assert not connection.is_read()


def test_the_size_of_a_message_is_read_at_the_start_only() -> None:
    """`configure` leaves the size of messages alone, also for connections that come later."""
    world = World(max_message_bytes=10)
    world.factory.configure(RoutePolicy(throttle=FRAMES, max_message_bytes=100))
    connection, _ = world.upgraded()
    connection.feed(frame(bytes(11), BINARY))
    assert [close_of(found)[0] for found in connection.frames()] == [1009]


def test_it_ends_all_connections() -> None:
    """`shut_down` closes all with 1001, and `abort` resets those that are left."""
    world = World()
    (first, _), (second, _) = world.upgraded(), world.upgraded(BOB)
    world.factory.shut_down()
    for each in (first, second):
        assert_closing(each, 1001, SHUTTING_DOWN)
        assert not each.is_cut_off()
    world.factory.abort()
    for each in (first, second):
        assert each.is_cut_off()
        each.settle()
    world.assert_empty()


def test_a_queue_of_its_own_runs_under_a_reactor() -> None:
    """Work of a queue of its own is done in the reactor's next turn."""
    clock = Clock()
    queue, done = own_queue(clock), []
    queue.enqueue(queue.join("key"), lambda: done.append("job"))
    assert done == []
    clock.advance(0)
    assert done == ["job"]
