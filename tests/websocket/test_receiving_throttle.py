"""Throttling: a peer over its quotas is not read from until its debt is paid, and no data is lost."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.asking import ask
from tests.support.frames import CONTINUATION, PING, PONG, close_frame, frame
from tests.support.harness import (
    BOB,
    Connection,
    FakeApplication,
    FakeSession,
    World,
    answer_pings,
    assert_closing,
    request_head,
)
from tests.support.transports import HIGH_WATER_BYTES
from websockets.frames import Opcode

from pyryrelay.guard import ByteQuota, Quota, ThrottlePolicy
from pyryrelay.guard.rate.throttle import PAUSE_FORGETS_S
from pyryrelay.protocol import PeerPolicy
from pyryrelay.protocol_options import RoutePolicy
from pyryrelay.runtime.timer_wheel import SLOT_S
from pyryrelay.websocket import deadlines
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.factory import RelayFactory

EXCESS_S = 30.0
FRAMES = ThrottlePolicy(frames=Quota.parse("1/s burst 5"), excess_timeout_s=EXCESS_S)
CLOSE_S = WebSocketLimits().close_timeout_s
LATE_S = 2 * SLOT_S
"""Time for one slot of the wheel, and one for a test that advances in small steps."""


def end(world: World, *connections: Connection) -> None:
    """Lose what is left, and check that nothing is held."""
    for connection in connections:
        connection.settle()
        connection.transport.lose()
    world.assert_empty()


def numbered(numbers: range) -> bytes:
    """Return one frame for each number."""
    return b"".join(frame(b"%d" % number) for number in numbers)


# Debts


@pytest.mark.parametrize("frames", [6, 15])
def test_a_peer_that_leaves_with_a_long_debt_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    """A peer that leaves with a long debt ends at once, and one with a debt of a second is waited for."""
    monkeypatch.setattr(deadlines, "has_hung_up", lambda transport: True)
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    connection.feed(numbered(range(frames)))
    assert not connection.is_read()
    world.pass_time(deadlines.STOPPED_LOOK_S + LATE_S)
    assert connection.is_cut_off() == (frames == 15)
    assert connection.is_read() == (frames == 6)
    connection.settle()
    assert session.closes == ([(1006, "")] if frames == 15 else [])
    end(world, connection)


def test_within_its_quota_a_peer_is_read_from() -> None:
    """A peer within its quota, burst and steady rate, is always read from."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    connection.feed(numbered(range(5)))
    assert connection.is_read()
    for number in range(5, 25):
        world.pass_time(1.0)
        connection.feed(frame(b"%d" % number))
        assert connection.is_read()
    assert [payload for payload, _ in session.received] == [b"%d" % number for number in range(25)]
    end(world, connection)


@pytest.mark.parametrize(
    ("throttle", "chunk"),
    [
        (FRAMES, frame(b"a") * 7),
        (FRAMES, frame(b"", PING) * 7),
        (FRAMES, frame(b"", PONG) * 7),
        (FRAMES, frame(b"", fin=False) + frame(b"", CONTINUATION, fin=False) * 5 + frame(b"", CONTINUATION)),
        (ThrottlePolicy(bytes=ByteQuota.parse("10/s burst 100")), frame(b"x" * 114)),
        (ThrottlePolicy(bytes=ByteQuota.parse("10/s burst 100")), frame(b"x" * 200)[:120]),
        (ThrottlePolicy(pings=Quota.parse("1/s burst 2")), frame(b"", PING) * 4),
    ],
    ids=["frames", "pings as frames", "pongs as frames", "fragments", "bytes", "part of a frame", "pings"],
)
def test_a_peer_over_its_quota_is_not_read_from_until_it_has_paid(throttle: ThrottlePolicy, chunk: bytes) -> None:
    """Two seconds of debt are two seconds without reading, and at most one slot of the wheel more."""
    world = World(throttle=throttle)
    connection, session = world.upgraded()
    connection.feed(chunk)
    assert not connection.is_read()
    world.pass_time(1.75)
    assert not connection.is_read()
    world.pass_time(0.25 + SLOT_S)
    assert connection.is_read()
    assert session.closes == []
    end(world, connection)


def test_pings_over_the_quota_are_still_answered() -> None:
    """Pings over the quota are answered before the pause."""
    world = World(throttle=ThrottlePolicy(pings=Quota.parse("1/s burst 2")))
    connection, _ = world.upgraded()
    connection.feed(b"".join(frame(b"%d" % number, PING) for number in range(4)))
    assert not connection.is_read()
    assert connection.payloads() == [b"0", b"1", b"2", b"3"]
    end(world, connection)


def test_messages_go_on_in_order_where_they_stopped() -> None:
    """A chunk that ends inside a frame is continued after the debt, and nothing is lost or repeated."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    stream = numbered(range(100, 130))
    numbers = [b"%d" % number for number in range(100, 130)]
    at = 0
    while at < len(stream):
        if connection.is_read():
            connection.feed(stream[at : at + 31])
            at += 31
        world.pass_time(0.25)
        assert [payload for payload, _ in session.received] == numbers[: len(session.received)]
    assert [payload for payload, _ in session.received] == numbers
    assert session.closes == []
    end(world, connection)


def test_a_frame_in_pieces_is_one_frame() -> None:
    """A frame costs one token, with its last byte, however it is cut."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    for byte in numbered(range(5)):
        connection.feed(bytes((byte,)))
    assert connection.is_read()
    connection.feed(frame(b"5")[:-1])
    assert connection.is_read()
    connection.feed(frame(b"5")[-1:])
    assert not connection.is_read()
    assert len(session.received) == 6
    end(world, connection)


def test_what_we_did_for_the_handshake_is_not_charged() -> None:
    """The quota of bytes counts from the first frame on."""
    world = World(throttle=ThrottlePolicy(bytes=ByteQuota.parse("1/s burst 12")))
    early = frame(b"123456")
    connection = ask(world, request_head() + early)
    assert connection.is_read()
    connection.feed(early[:1])
    assert not connection.is_read()
    end(world, connection)


def test_what_comes_during_a_pause_is_delivered_and_charged() -> None:
    """Data that arrives during a pause, as from TLS, waits and is charged."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    connection.feed(numbered(range(7)))
    connection.protocol.dataReceived(numbered(range(7, 10)))
    assert len(session.received) == 7
    world.pass_time(2.0 + SLOT_S)
    assert len(session.received) == 10
    assert not connection.is_read()
    world.pass_time(3.0 + SLOT_S)
    assert connection.is_read()
    end(world, connection)


def test_one_peers_debt_is_not_anothers() -> None:
    """A debt pauses its connection only, even among those of one address."""
    world = World(throttle=FRAMES)
    (connection, _), (sibling, other) = world.upgraded(), world.upgraded()
    connection.feed(frame(b"a") * 50)
    sibling.feed(frame(b"unharmed"))
    assert sibling.is_read()
    assert other.received == [(b"unharmed", False)]
    end(world, connection, sibling)


def test_every_application_has_its_own_quotas() -> None:
    """Each application has its own quotas."""
    world = World()
    phones = RelayFactory(
        FakeApplication("client"),
        RoutePolicy(throttle=FRAMES),
        WebSocketLimits(),
        world.gate,
        world.wheel,
        world.clock.seconds,
        world.fair_queue,
    )
    world.routes["/v1/client"] = phones
    phone, binary = ask(world, request_head("/v1/client")), ask(world, request_head())
    for connection in (phone, binary):
        connection.feed(frame(b"a") * 100)
    assert (phone.is_read(), binary.is_read()) == (False, True)
    end(world, phone, binary)
    assert not phones.open


# Excess without an end


def test_continuous_excess_is_closed_with_1008() -> None:
    """A peer that is always in debt again is closed after 30 s, and not before."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 7)
    waited_s = 0.0
    while waited_s < EXCESS_S - 0.25:
        world.pass_time(0.25)
        waited_s += 0.25
        connection.feed(frame(b"a") * 3)
        assert session.closes == []
    while not session.closes and waited_s < EXCESS_S + LATE_S:
        world.pass_time(0.25)
        waited_s += 0.25
    assert session.closes == [(1008, "quota exceeded")]
    assert_closing(connection, 1008, "quota exceeded")
    assert connection.has_ended()
    assert connection.is_read()
    connection.feed(close_frame(1008))
    connection.settle()
    world.assert_empty()


def test_a_debt_that_takes_too_long_is_closed_too() -> None:
    """A debt of more than 30 s closes the peer."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 100)
    world.pass_time(EXCESS_S - 0.25)
    assert session.closes == []
    world.pass_time(0.25 + LATE_S)
    assert_closing(connection, 1008, "quota exceeded")
    world.pass_time(CLOSE_S + LATE_S)
    assert connection.is_cut_off()
    end(world, connection)


def test_bursts_with_rests_between_them_are_never_closed() -> None:
    """A peer that rests after its debt starts a new excess each time."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    for _ in range(30):
        connection.feed(frame(b"a") * 7)
        world.pass_time(7.0)
        answer_pings(connection)
    assert len(session.received) == 210
    assert session.closes == []
    end(world, connection)


# Debts and pauses of the application


def test_a_paid_debt_does_not_resume_a_paused_peer() -> None:
    """A paused peer stays paused when its debt is paid."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 7)
    session.peer.pause()
    world.pass_time(100.0)
    assert not connection.is_read()
    assert session.closes == []
    session.peer.resume()
    assert connection.is_read()
    end(world, connection)


def test_resuming_a_peer_does_not_forgive_its_debt() -> None:
    """A resumed peer is not read from until its debt is paid."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    session.peer.pause()
    connection.protocol.dataReceived(frame(b"a") * 7)
    session.peer.resume()
    session.peer.resume()
    assert not connection.is_read()
    world.pass_time(2.0 + SLOT_S)
    assert connection.is_read()
    end(world, connection)


def test_a_session_that_pauses_inside_the_chunk_that_makes_the_debt() -> None:
    """A pause and a debt may begin with one chunk."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    world.application.on_messages = lambda session, batch: session.peer.pause()
    connection.feed(frame(b"a") * 7)
    world.pass_time(1.0)
    session.peer.resume()
    assert not connection.is_read()
    world.pass_time(1.0 + SLOT_S)
    assert connection.is_read()
    end(world, connection)


# Endings


@pytest.mark.parametrize("paused", [False, True])
def test_closing_a_throttled_peer_reads_its_answer(paused: bool) -> None:
    """A close resumes reading, so that the closing handshake can complete."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 7)
    if paused:
        session.peer.pause()
    session.peer.close(4404)
    assert connection.is_read()
    connection.feed(frame(b"crossing") * 9 + close_frame(4404))
    connection.settle()
    assert session.closes == [(4404, "")]
    assert len(session.received) == 7
    world.assert_empty()


def test_a_closing_peer_is_read_from_whatever_it_owes() -> None:
    """While our close frame waits, a new debt does not pause reading."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded(peer_reads=False)
    session.peer.send([b"#" * (HIGH_WATER_BYTES + 1), b"waiting"])
    session.peer.close(4404)
    connection.feed(frame(b"a") * 50)
    assert connection.is_read()
    assert session.received == []
    connection.transport.read_all()
    assert_closing(connection, 4404)
    connection.feed(close_frame(4404))
    end(world, connection)


Ending = Callable[[World, Connection, FakeSession], None]

ENDINGS: dict[str, tuple[Ending, int]] = {
    "lost": (lambda world, connection, session: connection.transport.lose(), 1006),
    "shutdown": (lambda world, connection, session: world.factory.shut_down(), 1001),
    "abort": (lambda world, connection, session: world.factory.abort(), 1006),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_throttled_peer_may_end_in_any_way(name: str) -> None:
    """The end is told once, nothing of the debt is left, and calls on the ended peer do nothing."""
    ending, code = ENDINGS[name]
    world = World(throttle=FRAMES)
    world.application.on_closed = lambda session: session.peer.resume()
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 7)
    session.peer.pause()
    ending(world, connection, session)
    world.pass_time(CLOSE_S + LATE_S)
    connection.settle()
    assert [found for found, _ in session.closes] == [code]
    world.assert_empty()
    session.peer.pause()
    session.peer.resume()
    assert not connection.is_read()
    world.assert_empty()


def test_a_throttled_peer_that_does_not_take_anything_has_stalled() -> None:
    """A throttled peer that does not read is closed as well."""
    world = World(throttle=FRAMES, policy=PeerPolicy(stall_timeout_s=10.0, stall_reason="stalled"))
    connection, session = world.upgraded(peer_reads=False)
    connection.feed(frame(b"a") * 30)
    session.peer.send([b"#" * (HIGH_WATER_BYTES + 1), b"waiting"])
    world.pass_time(10.0 + LATE_S)
    assert session.closes == [(1011, "stalled")]
    world.pass_time(CLOSE_S + LATE_S)
    end(world, connection)


# Liveness


def test_a_throttled_peer_is_not_pinged_and_not_judged() -> None:
    """During a debt there is no ping, no late pong and no late message."""
    world = World(throttle=ThrottlePolicy(frames=Quota.parse("1/5s burst 2")))
    connection, session = world.upgraded()
    world.pass_time(30.0 + LATE_S)
    (ping,) = connection.frames()
    world.pass_time(20.0)
    connection.feed(frame(b"a") * 7 + frame(b"late")[:-1])
    world.pass_time(24.75)
    assert not connection.is_read()
    assert connection.frames() == []
    world.pass_time(0.25 + SLOT_S)
    assert connection.is_read()
    assert session.closes == []
    world.pass_time(5.0)
    connection.feed(frame(b"late")[-1:] + frame(bytes(ping.data), PONG))
    assert session.received[-1] == (b"late", False)
    world.pass_time(4.0 + 10.0 + LATE_S)  # The rest of the time until the ping, and the debt of the last two frames.
    assert [found.opcode for found in connection.frames()] == [Opcode.PING]
    assert session.closes == []
    end(world, connection)


def test_throttling_oneself_postpones_no_heartbeat() -> None:
    """A peer that answers no ping is closed, however often its own excess pauses reading."""
    world = World(throttle=ThrottlePolicy(frames=Quota.parse("1/s burst 2")))
    connection, session = world.upgraded()
    for _ in range(200):
        if session.closes:
            break
        connection.feed(frame(b"a") * 3)
        world.pass_time(4.0)
    assert session.closes == [(1011, "heartbeat timeout")]


def test_a_probe_finds_a_throttled_peer_alive() -> None:
    """A throttled peer can answer a probe, so that it does not lose its slot."""
    world = World(throttle=ThrottlePolicy(frames=Quota.parse("1/s burst 2")))
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 9)
    assert not connection.is_read()
    answers: list[bool] = []
    session.peer.ping(lambda: answers.append(True))
    assert answers == [True]
    assert Opcode.PING not in [found.opcode for found in connection.frames()]
    end(world, connection)


# Other quotas while connections are open


def test_other_quotas_hold_at_once() -> None:
    """New quotas apply to open connections from their next chunk on, and to new ones."""
    world = World()
    connection, _ = world.upgraded()
    connection.feed((frame(b"a") + frame(b"", PING)) * 500)
    world.clock.advance(0)
    world.factory.configure(RoutePolicy(throttle=FRAMES))
    assert connection.is_read()
    later, _ = world.upgraded(BOB)
    for other in (connection, later):
        other.feed(frame(b"a") * 5)
        assert other.is_read()
        other.feed(frame(b"a"))
        assert not other.is_read()
    end(world, connection, later)


@pytest.mark.parametrize("throttle", [ThrottlePolicy(), ThrottlePolicy(frames=Quota.parse("10/s burst 20"))])
def test_a_debt_ends_with_its_quotas(throttle: ThrottlePolicy) -> None:
    """New quotas end a debt under the old ones."""
    world = World(throttle=ThrottlePolicy(frames=Quota.parse("1/hour burst 5")))
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 7)
    world.factory.configure(RoutePolicy(throttle=throttle))
    assert connection.is_read()
    connection.feed(frame(b"a") * 20)
    assert connection.is_read()
    world.pass_time(5.0)
    assert session.closes == []
    assert len(session.received) == 27
    end(world, connection)


def test_other_quotas_do_not_resume_a_paused_peer() -> None:
    """New quotas do not end a pause of the application."""
    world = World(throttle=FRAMES)
    connection, session = world.upgraded()
    connection.feed(frame(b"a") * 7)
    session.peer.pause()
    world.factory.configure(RoutePolicy())
    assert not connection.is_read()
    session.peer.resume()
    assert connection.is_read()
    end(world, connection)


def test_the_same_quotas_go_on() -> None:
    """A reload without a change of quotas keeps debts."""
    world = World(throttle=FRAMES)
    connection, _ = world.upgraded()
    connection.feed(frame(b"a") * 7)
    throttle = ThrottlePolicy(frames=Quota.parse("1/s burst 5"), excess_timeout_s=EXCESS_S)
    world.factory.configure(RoutePolicy(throttle=throttle))
    assert not connection.is_read()
    world.pass_time(2.0 + SLOT_S)
    assert connection.is_read()
    end(world, connection)


def test_other_quotas_while_a_connection_fails_to_open() -> None:
    """A connection that failed to open does not keep others from getting new quotas."""
    world = World()
    connection = world.connect()
    connection.transport.producer = object()
    connection.feed(request_head())
    connection.transport.producer = None
    other, _ = world.upgraded(BOB)
    world.factory.configure(RoutePolicy(throttle=FRAMES))
    other.feed(frame(b"a") * 7)
    assert not other.is_read()
    world.pass_time(CLOSE_S + LATE_S)
    end(world, connection, other)


# Everything at once


class Bucket:
    """The slow reference: tokens that come back, and may be owed."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.tokens, self.seen_s = rate, burst, burst, now

    def take(self, cost: int, now: float) -> float:
        """Take tokens, and return the seconds until none are owed."""
        self.tokens = min(self.burst, self.tokens + (now - self.seen_s) * self.rate) - cost
        self.seen_s = now
        return max(0.0, -self.tokens / self.rate)


FRAME_BYTES = len(frame(b"0000"))


class Model:
    """What a peer owes for the bytes that it sent: frames of one size, numbered."""

    def __init__(self, now: float) -> None:
        self.frames, self.bytes = Bucket(2.0, 6.0, now), Bucket(16.0, 128.0, now)
        self.sent = 0
        self.paid_at_s = self.excess_since_s = -math.inf

    def complete(self) -> int:
        """Return how many frames have arrived with their last byte, which is when they count."""
        return self.sent // FRAME_BYTES

    def send(self, size: int, now: float) -> bytes:
        """Return the next bytes of the stream, and their cost."""
        first = self.sent // FRAME_BYTES
        stream = b"".join(frame(b"%04d" % number) for number in range(first, first + size // FRAME_BYTES + 2))
        at, before = self.sent - first * FRAME_BYTES, self.complete()
        self.sent += size
        wait_s = max(self.frames.take(self.complete() - before, now), self.bytes.take(size, now))
        if now > self.paid_at_s + PAUSE_FORGETS_S:
            self.excess_since_s = now
        if wait_s:
            self.paid_at_s = now + wait_s
        return stream[at : at + size]


@given(data=st.data())
def test_a_peer_is_read_from_if_neither_pause_holds(data: st.DataObject) -> None:
    """For any chunks, pauses, resumes and times reading pauses and resumes as in a slow model of tokens."""
    policy = ThrottlePolicy(
        frames=Quota.parse("2/s burst 6"), bytes=ByteQuota.parse("16/s burst 128"), excess_timeout_s=EXCESS_S
    )
    world = World(throttle=policy)
    connection, session = world.upgraded()
    model, paused = Model(world.clock.seconds()), False
    for _ in range(data.draw(st.integers(1, 30))):
        step = data.draw(st.sampled_from(["send", "send", "pause", "resume", "wait"]))
        if step == "send" and connection.is_read():
            connection.feed(model.send(data.draw(st.integers(1, 150)), world.clock.seconds()))
        elif step == "pause":
            session.peer.pause()
            paused = True
        elif step == "resume":
            session.peer.resume()
            paused = False
        elif step == "wait":
            world.pass_time(data.draw(st.sampled_from([0.25, 1.0, 4.0])))
        now = world.clock.seconds()
        if session.closes:
            assert session.closes == [(1008, "quota exceeded")]
            assert now >= model.excess_since_s + EXCESS_S
            break
        if paused or now < model.paid_at_s:
            assert not connection.is_read()
        elif now >= model.paid_at_s + SLOT_S:
            assert connection.is_read()
    whole = model.sent // FRAME_BYTES
    assert session.received == [(b"%04d" % number, False) for number in range(whole)]
    end(world, connection)
