"""The factory of one application's connections: it builds, configures and ends them."""

from __future__ import annotations

from typing import Any, cast

from tests.support.deflate import Deflating
from tests.support.frames import BINARY, PING, close_of, frame
from tests.support.harness import ALICE, BOB, KEY, PATH, Connection, World, assert_closing, client_of, request_head
from tests.support.transports import Transport, tcp_address
from twisted.internet.task import Clock

from pyryrelay.guard import Gate, Lease, Quota, ThrottlePolicy
from pyryrelay.protocol import Request
from pyryrelay.protocol_options import RoutePolicy
from pyryrelay.websocket.context import Traffic
from pyryrelay.websocket.factory import SHUTTING_DOWN, own_queue
from pyryrelay.websocket.frames.negotiation import negotiate

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


OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def deflated(world: World, *fields: str) -> tuple[Connection, bytes]:
    """Return a connection that asks for compression, and the head of the answer."""
    connection = world.connect()
    connection.feed(request_head(PATH, *fields))
    return connection, connection.take()


def test_messages_are_compressed_if_both_sides_want_it() -> None:
    """A client that offers it, on a route that has it, sends and gets compressed messages; control frames stay."""
    world = World(deflate="context")
    connection, answer = deflated(world, OFFER)
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n" in answer
    agreed = negotiate([OFFER.partition(": ")[2]], "context")
    assert agreed is not None
    peer, session, text = Deflating(agreed), world.application.sessions[-1], b"one and one and one and one and " * 9
    for _ in range(2):
        connection.feed(peer.message(text) + frame(b"plain") + frame(b"?", PING))
        session.peer.send([text, b"short"], before=b"<", after=b">")
        sent = connection.take()
        assert len(sent) < 200
        assert peer.read(sent) == [(b"?", False), (b"<" + text + b">", True), (b"<short>", False)]
    assert session.received == [(text, False), (b"plain", False)] * 2


def test_nothing_is_compressed_otherwise() -> None:
    """Without the offer, with one that cannot be met, or on a route without it, nothing is answered about it."""
    world, off = World(deflate="no-context"), World()
    for each, fields in ((world, ()), (world, ("Sec-WebSocket-Extensions: x-other",)), (off, (OFFER,))):
        connection, answer = deflated(each, *fields)
        assert b"101 " in answer
        assert b"Extensions" not in answer
        connection.feed(frame(b"a", rsv=4))
        assert [close_of(found)[0] for found in connection.frames()] == [1002]


def test_a_bomb_ends_one_connection() -> None:
    """A message that inflates to more than the limit is closed with 1009, data that cannot be inflated with 1007."""
    world = World(deflate="no-context", max_message_bytes=1000)
    agreed = negotiate(["permessage-deflate"], "no-context")
    assert agreed is not None
    for data, code in ((Deflating(agreed).message(bytes(1_000_000)), 1009), (frame(b"\xff" * 9, rsv=4), 1007)):
        connection, _ = deflated(world, OFFER)
        connection.feed(data)
        assert [close_of(found)[0] for found in connection.frames()] == [code]
        assert world.application.sessions[-1].received == []


def test_many_bombs_take_turns() -> None:
    """Small frames that hold a lot are handed over in several batches, and nothing is read meanwhile."""
    world = World(deflate="no-context", max_message_bytes=100_000)
    agreed = negotiate(["permessage-deflate"], "no-context")
    assert agreed is not None
    connection, _ = deflated(world, OFFER)
    session = world.application.sessions[-1]
    connection.feed(b"".join(Deflating(agreed).message(bytes(100_000), BINARY) for _ in range(10)))
    assert len(session.received) == 3
    assert not connection.is_read()
    world.pass_time(1, step_s=0.01)
    assert [len(batch) for batch in session.batches] == [3, 3, 3, 1]
    assert connection.is_read()


def test_totals_of_all_connections() -> None:
    """Admissions, messages and bytes of frames are counted for all connections together."""
    world = World()
    (connection, session), (other, _) = world.upgraded(), world.upgraded(BOB)
    connection.feed(frame(b"one") + frame(b"two", BINARY))
    other.feed(frame(b"", PING))
    session.peer.send([b"a", b"bc"])
    size = len(frame(b"one")) * 2 + len(frame(b"", PING))
    assert world.factory.traffic == Traffic(admitted=2, messages_in=2, messages_out=2, bytes_in=size, bytes_out=7)


def test_a_connection_that_was_admitted_before() -> None:
    """With a lease the gate is not asked again, and the lease is released once, when the connection is lost."""
    world = World()
    elsewhere = Gate()
    lease = elsewhere.admit(client_of(ALICE), "server", 0.0)
    assert isinstance(lease, Lease)
    request = Request(PATH, {}, client_of(ALICE))
    transport = Transport(tcp_address(ALICE))
    connection = world.factory.build(request, lease)
    transport.protocol = connection
    connection.upgrade(cast(Any, transport), request, KEY, b"")
    connection.flush()
    assert transport.taken.startswith(b"HTTP/1.1 101 ")
    assert (world.tokens_spent(), world.gate.leases.connections, elsewhere.leases.connections) == (0, 0, 1)
    transport.lose()
    assert elsewhere.leases.connections == 0
    world.assert_empty()
