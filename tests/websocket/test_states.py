"""The table of a connection's states, by itself and as connections follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.frames import PONG, close_frame, frame
from tests.support.harness import ALICE, KEY, PATH, World, client_of, request_head
from tests.support.transports import HIGH_WATER_BYTES, Transport, tcp_address
from twisted.internet.defer import Deferred

from pyryrelay.guard import GateConfig, Quota
from pyryrelay.protocol import PeerPolicy, Request
from pyryrelay.runtime.timer_wheel import SLOT_S
from pyryrelay.websocket.connection import Connection
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.states import TRANSITIONS, Event, State, Transition

IMPOSSIBLE = {
    State.CONNECTING: {
        Event.CLOSE_REQUESTED: "there is no session that could ask for it",
        Event.FLUSHED: "nothing is sent yet",
        Event.PEER_CLOSED: "no frame is read before the upgrade is complete",
        Event.PEER_LEFT: "the upgrade is one call, in which nothing arrives",
        Event.FAILED: "no application was asked anything yet",
        Event.WRITING_ENDED: "nothing is sent yet",
        Event.TIMED_OUT: "it has no deadline",
        Event.CUT_OFF: "it is not known as open yet",
    },
    State.OPEN: {
        Event.ADMITTED: "the gate is asked once",
        Event.DENIED: "the gate is asked once",
        Event.FLUSHED: "nothing waits for that",
        Event.WRITING_ENDED: "the write side goes on",
        Event.TIMED_OUT: "its end has not begun; other deadlines lead to `failed`",
    },
    State.FLUSHING: {
        Event.ADMITTED: "the gate is asked once",
        Event.DENIED: "the gate is asked once",
        Event.CLOSE_REQUESTED: "the first one counts",
        Event.WRITING_ENDED: "the write side goes on",
    },
    State.CLOSING: {
        Event.ADMITTED: "the gate is asked once",
        Event.DENIED: "the gate is asked once",
        Event.CLOSE_REQUESTED: "the first one counts",
        Event.FLUSHED: "nothing waits for that",
        Event.WRITING_ENDED: "the write side goes on",
    },
    **{
        state: {
            Event.ADMITTED: "the gate is asked once",
            Event.DENIED: "the gate is asked once",
            Event.CLOSE_REQUESTED: "it is being closed",
            Event.FLUSHED: "what waited is forgotten",
            Event.PEER_CLOSED: "what arrives is discarded",
            Event.PEER_LEFT: "the peer's end is awaited as it is",
            Event.FAILED: "nothing can fail that is not over",
        }
        for state in (State.DRAINING, State.LINGERING, State.DISCONNECTING, State.ABORTED, State.CLOSED)
    },
}
"""Why an event cannot happen in a state, for each pair that is not in the table."""
IMPOSSIBLE[State.LINGERING][Event.WRITING_ENDED] = "it has ended"
IMPOSSIBLE[State.DISCONNECTING][Event.WRITING_ENDED] = "it has ended"
IMPOSSIBLE[State.ABORTED] |= {
    Event.WRITING_ENDED: "the transport is as good as gone",
    Event.TIMED_OUT: "it has no deadline: the transport reports the end by itself",
    Event.CUT_OFF: "it was",
}
IMPOSSIBLE[State.CLOSED] |= {
    Event.WRITING_ENDED: "there is no transport",
    Event.TIMED_OUT: "it is on no timer",
    Event.CUT_OFF: "there is no transport",
    Event.LOST: "a transport is lost once",
}


# The table by itself


def test_each_event_in_each_state_leads_somewhere_or_cannot_happen() -> None:
    """Every pair of state and event has a transition or a reason why it cannot happen."""
    for state in State:
        for event in Event:
            assert ((state, event) in TRANSITIONS) != (event in IMPOSSIBLE[state]), (state, event)


def test_every_transition_leads_forwards() -> None:
    """No state is entered twice, so that every connection ends."""
    for (source, _), transition in TRANSITIONS.items():
        assert transition.target > source


def test_all_states_are_reachable_and_lead_to_the_end() -> None:
    """Each state can be reached from the first, and leads to the last."""
    arrows = {(source, transition.target) for (source, _), transition in TRANSITIONS.items()}
    reached, ending = {State.CONNECTING}, {State.CLOSED}
    for _ in State:
        reached |= {target for source, target in arrows if source in reached}
        ending |= {source for source, target in arrows if target in ending}
    assert reached == ending == set(State)


def test_the_transport_may_be_lost_at_any_time() -> None:
    """The loss of the transport leads from every state to the last."""
    for state in State:
        assert ((state, Event.LOST) in TRANSITIONS) == (state is not State.CLOSED)


def test_every_state_and_effect_is_described() -> None:
    """Each state and event has a meaning and each transition an effect, in whole sentences."""
    meanings = [state.meaning for state in State] + [event.meaning for event in Event]
    for text in meanings + [row.effect for row in TRANSITIONS.values()]:
        assert text[0].isupper()
        assert text.endswith(".")


@pytest.mark.parametrize("row", sorted(set(TRANSITIONS.values())))
def test_each_action_is_a_method_of_connections(row: Transition) -> None:
    """The action of each row is a method of connections."""
    assert callable(getattr(Connection, f"_{row.action}"))


# Connections follow the table


CLOSE_S = WebSocketLimits().close_timeout_s
BLOCK = b"#" * (HIGH_WATER_BYTES + 1)


class Watched(World):
    """A world whose connection records its transitions."""

    def __init__(self) -> None:
        super().__init__(policy=PeerPolicy(stall_timeout_s=600.0))
        self.connection = self.connect()
        self.connection.feed(request_head())
        self.connection.take()
        (self.session,) = self.application.sessions
        (self.websocket,) = self.factory.open
        self.made: list[tuple[State, Event]] = []
        fire = self.websocket._fire

        def watch(event: Event) -> None:
            self.made.append((self.websocket._state, event))
            fire(event)

        self.websocket._fire = watch  # type: ignore[method-assign]


def flushing(world: Watched) -> None:
    """Close as the application while much data waits."""
    world.connection.transport.peer_reads = False
    world.session.peer.send([BLOCK, b"waiting"])
    world.session.peer.close(4404)


def draining(world: Watched) -> None:
    """Close as a peer that does not take the answer."""
    world.connection.transport.peer_reads = False
    world.session.peer.send([BLOCK])
    world.connection.feed(close_frame())


def lingering(world: Watched) -> None:
    """Close as a peer that does not end its side."""
    world.connection.transport.peer_stays = True
    world.connection.feed(close_frame())


def disconnecting(world: Watched) -> None:
    """Close as a peer that does not end its side, and wait a second."""
    lingering(world)
    world.pass_time(1.0)


WAYS: dict[State, Callable[[Watched], object]] = {
    State.OPEN: lambda world: None,
    State.FLUSHING: flushing,
    State.CLOSING: lambda world: world.session.peer.close(4404),
    State.DRAINING: draining,
    State.LINGERING: lingering,
    State.DISCONNECTING: disconnecting,
    State.ABORTED: lambda world: world.factory.abort(),
}
"""How an open connection gets into each state."""

CAUSES: dict[Event, Callable[[Watched], object]] = {
    Event.CLOSE_REQUESTED: lambda world: world.session.peer.close(4404),
    Event.FLUSHED: lambda world: world.connection.transport.read_all(),
    Event.PEER_CLOSED: lambda world: world.connection.feed(close_frame()),
    Event.PEER_LEFT: lambda world: world.websocket.ended_below(),
    Event.FAILED: lambda world: world.connection.feed(frame(b"a", mask=None)),
    Event.WRITING_ENDED: lambda world: world.connection.transport.read_all(),
    Event.TIMED_OUT: lambda world: world.pass_time(CLOSE_S + 2 * SLOT_S),
    Event.CUT_OFF: lambda world: world.factory.abort(),
    Event.LOST: lambda world: world.connection.transport.lose(),
}
"""What makes each event happen."""


@pytest.mark.parametrize(
    ("state", "event"), [pair for pair in TRANSITIONS if pair[0] is not State.CONNECTING], ids=lambda each: each.name
)
def test_connections_make_each_transition(state: State, event: Event) -> None:
    """Each event of the table, made to happen, leads to the state in the table."""
    world = Watched()
    WAYS[state](world)
    assert world.websocket._state is state
    world.made.clear()
    CAUSES[event](world)
    assert world.made[0] == (state, event)
    states = [source for source, _ in world.made] + [world.websocket._state]
    assert states[1] is TRANSITIONS[state, event].target
    world.factory.abort()
    world.connection.transport.lose()
    world.assert_empty()


def state_of(connection: Connection) -> State:
    """Return its state, in a way that mypy does not narrow."""
    return connection._state


@pytest.mark.parametrize("event", [Event.ADMITTED, Event.DENIED, Event.LOST])
def test_connections_begin_as_the_table_says(event: Event) -> None:
    """The guard admits or denies an upgrade, or the transport is lost because asking it failed."""
    world = World(gate=GateConfig(upgrade_quota=Quota.parse("1/minute burst 1")))
    websocket = world.factory.build(Request(PATH, {}, client_of(ALICE)))
    assert state_of(websocket) is State.CONNECTING
    transport: Any = Transport(tcp_address(ALICE))
    if event is Event.DENIED:
        world.gate.spend(client_of(ALICE), world.clock.seconds())
    if event is not Event.LOST:
        websocket.upgrade(transport, Request(PATH, {}, client_of(ALICE)), KEY, b"")
        websocket.flush()
        assert transport.taken.startswith(b"HTTP/1.1 101" if event is Event.ADMITTED else b"HTTP/1.1 429")
        assert state_of(websocket) is TRANSITIONS[State.CONNECTING, event].target
        assert transport.disconnecting is (event is Event.DENIED)
    for _ in range(2):
        websocket.connectionLost()
        assert state_of(websocket) is State.CLOSED
    assert [session.closes for session in world.application.sessions] == [[(1006, "")]] * (event is Event.ADMITTED)
    world.assert_empty()


class ConnectionMachine(RuleBasedStateMachine):
    """Any events of a connection, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Watched()
        self.seen = State.OPEN
        self.waiting: list[Deferred[None]] = []
        self.world.application.on_messages = lambda session, batch: self.take()

    def take(self) -> Deferred[None] | None:
        """Take every other batch later."""
        if len(self.world.session.batches) % 2:
            return None
        self.waiting.append(Deferred())
        return self.waiting[-1]

    @property
    def is_connected(self) -> bool:
        """Tell whether the transport is still there."""
        return self.world.connection.transport.connected

    @rule(data=st.sampled_from([frame(b"hello"), frame(b"\x00", 2), frame(b"", PONG), frame(b"hello")[:3]]))
    def the_peer_speaks(self, data: bytes) -> None:
        """Send whole frames, or the beginning of one, as the peer."""
        self.world.connection.feed(data)

    @rule(
        data=st.sampled_from([frame(b"\xff"), frame(b"a", mask=None), frame(b"", 3), close_frame(), close_frame(1005)])
    )
    def the_peer_ends_it(self, data: bytes) -> None:
        """Send a close frame, or a protocol error, as the peer."""
        self.world.connection.feed(data)

    @rule(stays=st.booleans(), reads=st.booleans())
    def the_peer_changes(self, stays: bool, reads: bool) -> None:
        """Change whether the peer reads, and whether it ends its side after ours."""
        transport = self.world.connection.transport
        transport.peer_stays, transport.peer_reads = stays, reads
        if reads and self.is_connected:
            transport.read_all()

    @rule()
    def the_application_sends(self) -> None:
        """Send enough to fill a transport."""
        self.world.session.peer.send([BLOCK, b"more"])

    @rule(what=st.sampled_from(["close", "pause", "resume", "ping"]))
    def the_application_acts(self, what: str) -> None:
        """Make one call of a peer's methods."""
        peer = self.world.session.peer
        match what:
            case "close":
                peer.close(4404, "no")
            case "ping":
                peer.ping(lambda: None)
            case _:
                getattr(peer, what)()

    @rule()
    def the_application_fails(self) -> None:
        """Let the next callback raise."""
        self.world.websocket._ask_application(lambda: 1 / 0)

    @rule(fails=st.booleans())
    @precondition(lambda self: self.waiting)
    def the_application_takes_a_batch(self, fails: bool) -> None:
        """What it has waited for fires, or fails."""
        if fails:
            self.waiting.pop().errback(RuntimeError())
        else:
            self.waiting.pop().callback(None)

    @rule(what=st.sampled_from(["shut_down", "abort"]))
    def the_relay_ends(self, what: str) -> None:
        """Close all connections, or reset them."""
        getattr(self.world.factory, what)()

    @rule()
    def the_peer_leaves_below(self) -> None:
        """End the peer's TLS."""
        if self.is_connected:
            self.world.websocket.ended_below()

    @rule(seconds=st.sampled_from([SLOT_S, 2.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        """Let a slot of the wheel pass, or more."""
        self.world.pass_time(seconds)

    @rule()
    def the_reactor_turns(self) -> None:
        """Report ends that are complete."""
        self.world.connection.settle()

    @rule()
    @precondition(lambda self: self.world.websocket._state > State.OPEN)
    def the_transport_is_lost(self) -> None:
        """Lose the transport."""
        self.world.connection.transport.lose()

    @invariant()
    def it_goes_forwards(self) -> None:
        """The state never goes back, and each transition is one of the table."""
        state = self.world.websocket._state
        assert state >= self.seen
        self.seen = state
        assert all(pair in TRANSITIONS for pair in self.world.made)
        assert (state is State.CLOSED) is not self.is_connected

    @invariant()
    def the_end_is_told_once(self) -> None:
        """The session is told once, by the time that the write side ends."""
        closes, state = len(self.world.session.closes), self.world.websocket._state
        assert closes <= 1
        assert len(self.waiting) <= 1
        if state in (State.DRAINING, State.LINGERING, State.DISCONNECTING, State.CLOSED):
            assert closes == 1
        if state <= State.FLUSHING:
            assert closes == 0

    @invariant()
    def the_end_is_limited(self) -> None:
        """An end that is not complete has a deadline."""
        if State.OPEN < self.world.websocket._state < State.ABORTED:
            assert self.world.websocket.wheel_slot is not None

    def teardown(self) -> None:
        """Check that nothing is left once the relay ends."""
        self.world.factory.abort()
        self.world.connection.transport.lose()
        assert self.world.websocket._state is State.CLOSED
        assert len(self.world.session.closes) == 1
        self.world.assert_empty()


TestConnectionMachine = ConnectionMachine.TestCase
TestConnectionMachine.settings = hypothesis.settings(max_examples=150, stateful_step_count=20, deadline=None)
