"""How HTTP connections end: draining, a late refusal of the gate, and peers that leave at any byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.asking import HEALTH, SMALL, answered, ask, status, use_up
from tests.support.frames import frame
from tests.support.harness import ALICE, BOB, DATE, Connection, LogReader, World, request_head

from pyryrelay.guard import CidrSet, GateConfig, LeaseLimits, Quota, Reason
from pyryrelay.http.answering import LINGER_S
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.websocket import autobahn_base
from pyryrelay.websocket.connection import Connection as WebSocketConnection

# The end


def test_draining() -> None:
    """While draining attempts are 503 and spend nothing, and pages are still answered."""
    world = World()
    world.live.drain()
    assert status(ask(world, request_head())) == 503
    assert world.observer.refusals == [("server", 503, "draining", ALICE)]
    assert world.tokens_spent() == 0
    assert status(ask(world, HEALTH)) == 200


def test_shutting_down_drops_connections_that_are_not_upgraded() -> None:
    """A connection without an upgrade is aborted at the shutdown, and leaves nothing behind."""
    world = World()
    connection = ask(world, b"GET ")
    for waiting in list(world.context.waiting):
        waiting.shut_down()
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()


class Inconsistent(World):
    """A world whose gate refuses an admission that its `peek` allowed."""

    def __init__(self) -> None:
        super().__init__(gate=SMALL)
        self.gate.refuse = lambda address, route, now: None  # type: ignore[method-assign]


def test_the_authority_is_asked_in_autobahn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that only `onConnect` gets is one complete, counted answer, without a 101."""
    world = Inconsistent()
    use_up(world)
    monkeypatch.setattr(autobahn_base, "formatdate", lambda usegmt: DATE[8:-2].decode())
    connection = ask(world, request_head())
    answer = answered(connection)
    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests" + DATE + b"Retry-After: 10\r\n")
    assert world.observer.counts[Reason.RATE_LIMIT] == 1
    assert world.observer.refusals == [("server", 429, "rate_limit", ALICE)]
    assert world.application.sessions == []
    connection.settle()
    world.assert_empty()


def test_a_peer_that_is_refused_in_autobahn_is_cut_off_too() -> None:
    """A peer that never takes such a refusal is cut off."""
    world = Inconsistent()
    use_up(world)
    connection = world.connect()
    connection.transport.peer_reads = False
    connection.feed(request_head())
    world.pass_time(30.0)
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()


@pytest.mark.parametrize("what", ["application", "page"])
def test_our_own_fault_is_answered_too(what: str) -> None:
    """A failure of an application or a page is a 500 and one logged failure, and leaves nothing behind."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    world = World()
    world.application.gate_headers = fail  # type: ignore[method-assign,assignment]
    world.pages["/healthz"] = fail
    with LogReader() as log:
        connection = ask(world, request_head() if what == "application" else HEALTH)
    assert status(connection) == 500
    assert len(log.failures) == 1
    connection.settle()
    world.assert_empty()


def test_our_own_fault_behind_an_upgrade_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure behind an upgrade cuts the connection off, since there can be no HTTP answer."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    world = World()
    monkeypatch.setattr(WebSocketConnection, "dataReceived", fail)
    with LogReader() as log:
        connection = ask(world, request_head())
    assert connection.take().count(b"HTTP/1.1") == 0
    assert connection.is_cut_off()
    assert len(log.failures) == 1
    connection.settle()
    world.assert_empty()


SCRIPTS = {
    "upgrade": request_head() + frame(b"hello"),
    "page": HEALTH,
    "bad headers": request_head(without=["Upgrade"]),
    "garbage": b"\x00" * 40 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("wait_s", [0.0, HEAD_TIMEOUT_S + 1.0, HEAD_TIMEOUT_S + LINGER_S + 2.0])
def test_a_peer_that_leaves_after_any_byte_leaves_nothing_behind(name: str, wait_s: float) -> None:
    """Nothing is held for a connection that has ended, whatever was sent and however long it stayed."""
    script = SCRIPTS[name]
    for end in range(len(script) + 1):
        world = World()
        connection = ask(world, script[:end])
        world.pass_time(wait_s, step_s=0.5)
        connection.transport.lose()
        world.assert_empty()
        for session in world.application.sessions:
            assert session.closes == [(1006, "")]


@given(data=st.data())
def test_leases_of_many_connections(data: st.DataObject) -> None:
    """Any mix of connections, bytes, waiting and losses ends with every lease released."""
    limits = LeaseLimits(
        max_connections=3, max_connections_per_address=2, max_handshakes=3, max_handshakes_per_address=2
    )
    world = World(gate=GateConfig(upgrade_quota=Quota.parse("1/s burst 5"), limits=limits))
    connections: list[tuple[Connection, bytes]] = []
    for _ in range(data.draw(st.integers(1, 25))):
        step = data.draw(st.sampled_from(["connect", "feed", "wait", "settle", "lose"]))
        if step == "connect" or not connections:
            script = data.draw(st.sampled_from(list(SCRIPTS.values())))
            connections.append((world.connect(data.draw(st.sampled_from([ALICE, BOB]))), script))
        elif step == "wait":
            world.pass_time(data.draw(st.sampled_from([0.5, 3.0, 8.0])), step_s=0.5)
        else:
            at = data.draw(st.integers(0, len(connections) - 1))
            connection, script = connections[at]
            if step == "feed":
                size = data.draw(st.integers(0, len(script)))
                connection.feed(script[:size])
                connections[at] = connection, script[size:]
            elif step == "settle":
                connection.settle()
            else:
                connection.transport.lose()
        alive = sum(not connection.is_lost() for connection, _ in connections)
        assert world.gate.leases.connections + world.gate.leases.handshakes <= alive
    for connection, _ in connections:
        connection.transport.lose()
    world.assert_empty()


@pytest.mark.parametrize("sent", [b"", b"G"])
@pytest.mark.parametrize("patient", [True, False])
def test_repeated_departures_without_a_request(sent: bytes, patient: bool) -> None:
    """An address may leave without a request once a second, unless it began one; else it is refused for it."""
    world = World()
    for _ in range(62):
        connection = world.connect()
        connection.feed(sent)
        if patient:
            world.clock.advance(0)
            connection.protocol.deadline_reached(world.clock.seconds())
            connection.settle()
        else:
            connection.transport.lose()
    reasons = [reason for _, _, reason, _ in world.observer.refusals]
    expected = ["slow_head" if patient else "unfinished_head"] * 62 if sent else ["no_request"] * 2
    assert reasons == expected
    assert world.observer.refusals[-1][3] == ALICE
    world.assert_empty()


def test_ends_by_the_relay_are_no_departures() -> None:
    """A connection that the relay ended counts as no departure without a request."""
    world = World(gate=GateConfig(upgrade_quota=None, deny=CidrSet([BOB])))
    for _ in range(99):
        for data, host in ((request_head(), ALICE), (request_head("/healthz"), ALICE), (b"x", BOB), (b"", ALICE)):
            connection = world.connect(host)
            connection.feed(data)
            if not data:
                connection.protocol.shut_down()
            connection.transport.lose()
    assert {"no_request", "unfinished_head"}.isdisjoint(reason for _, _, reason, _ in world.observer.refusals)
    world.assert_empty()
