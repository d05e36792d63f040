"""Liveness: pings, pongs and the time limit of a message."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.websocket.liveness import PAYLOAD_BYTES, Action, Liveness

INTERVAL_S, PONG_S, MESSAGE_S = 30.0, 20.0, 15.0
START_S = 100.0
KEY = b"0123456789abcdef"


def liveness() -> Liveness:
    """The liveness of a connection that was just opened."""
    return Liveness(INTERVAL_S, PONG_S, MESSAGE_S, START_S, lambda: KEY)


def pinged(alive: Liveness, now: float) -> bytes:
    """Check at a time when a ping is due, and return that ping."""
    assert alive.check(now) is Action.PING
    return alive.ping()


def test_the_first_ping_is_due_after_an_interval() -> None:
    """The first ping is due when the interval is over, and not before."""
    alive = liveness()
    assert alive.due_s == START_S + INTERVAL_S
    assert alive.check(START_S + INTERVAL_S - 0.001) is Action.NOTHING
    assert alive.check(START_S + INTERVAL_S) is Action.PING


def test_pings_are_told_apart_by_their_payloads() -> None:
    """Each ping has a payload of its own, which fits a control frame."""
    alive = liveness()
    pings = [alive.ping() for _ in range(300)]
    assert len(set(pings)) == 300
    assert {len(ping) for ping in pings} == {PAYLOAD_BYTES}


def test_the_pings_of_one_connection_tell_nothing_about_another() -> None:
    """A peer cannot answer pings of another connection with payloads of its own pings."""
    keys = iter([KEY, KEY[::-1]])
    mine, other = (Liveness(INTERVAL_S, PONG_S, MESSAGE_S, START_S, lambda: next(keys)) for _ in range(2))
    answered: list[int] = []
    read = [mine.ping() for _ in range(3)]
    for at in range(3):
        other.ping(lambda at=at: answered.append(at))  # type: ignore[misc]
    other.pongs(read)
    assert answered == []


def test_a_ping_tells_nothing_about_the_next_one() -> None:
    """A peer cannot answer the next ping by counting on from the last one."""
    alive = liveness()
    first, second = alive.ping(), pinged(alive, 130.0)
    number = int.from_bytes(first[:8], "big") + 1
    assert second[:8] == number.to_bytes(8, "big")
    alive.pongs([number.to_bytes(8, "big") + first[8:], second[:8], second[:-1], second + b"x"])
    assert alive.check(150.0) is Action.HEARTBEAT_TIMEOUT


def test_the_key_is_drawn_once_and_only_when_it_is_needed() -> None:
    """A connection that is never pinged uses no randomness."""
    drawn: list[bytes] = []

    def draw() -> bytes:
        drawn.append(KEY)
        return KEY

    alive = Liveness(INTERVAL_S, PONG_S, MESSAGE_S, START_S, draw)
    alive.pong(bytes(PAYLOAD_BYTES))
    assert not drawn
    for _ in range(3):
        alive.pong(alive.ping())
    assert drawn == [KEY]


def test_a_pong_in_time_keeps_the_peer() -> None:
    """After an answered ping the next deadline is that of the next ping."""
    alive = liveness()
    ping = pinged(alive, 130.0)
    assert alive.due_s == 150.0
    alive.pong(ping)
    assert alive.due_s == 160.0
    assert alive.check(150.0) is Action.NOTHING
    assert alive.check(160.0) is Action.PING


def test_a_missing_pong_is_a_heartbeat_timeout() -> None:
    """Without a pong the peer has failed when the time is over, and not before."""
    alive = liveness()
    pinged(alive, 130.0)
    assert alive.check(149.9) is Action.NOTHING
    assert alive.check(150.0) is Action.HEARTBEAT_TIMEOUT


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"1",
        bytes(8),
        bytes(7) + b"\x02",
        b"\xff" * 8,
        bytes(7) + b"\x01\x00",
        bytes(7) + b"\x01" + bytes(8),
        b"x" * 125,
    ],
)
def test_a_pong_that_answers_nothing_proves_nothing(payload: bytes) -> None:
    """RFC 6455 section 5.5.3: unsolicited pongs are ignored."""
    alive = liveness()
    called: list[str] = []
    alive.check(130.0)
    alive.ping(lambda: called.append("probe"))
    alive.pong(payload)
    assert called == []
    assert alive.check(150.0) is Action.HEARTBEAT_TIMEOUT


def test_a_probe_is_answered_by_its_pong_once() -> None:
    """``answered`` is called when the pong arrives, and not again for a repeated pong."""
    alive = liveness()
    called: list[str] = []
    ping = alive.ping(lambda: called.append("probe"))
    assert called == []
    alive.pong(ping)
    alive.pong(ping)
    assert called == ["probe"]


def test_a_later_pong_answers_earlier_probes() -> None:
    """RFC 6455 section 5.5.3: a peer may answer the latest ping only; an earlier pong proves no later ping."""
    alive = liveness()
    called: list[int] = []
    pings = [alive.ping(lambda at=at: called.append(at)) for at in range(4)]  # type: ignore[misc]
    alive.pong(pings[1])
    assert called == [0, 1]
    alive.pong(pings[3])
    assert called == [0, 1, 2, 3]


def test_a_probe_from_inside_an_answer_waits_for_its_own_pong() -> None:
    """A probe that is sent while another one is answered is not answered by the same pong."""
    alive = liveness()
    called: list[str] = []

    def again() -> None:
        called.append("first")
        alive.ping(lambda: called.append("second"))

    ping = alive.ping(again)
    alive.pong(ping)
    assert called == ["first"]


def test_with_several_pings_under_way_each_has_its_own_deadline() -> None:
    """If pongs may take longer than the interval, the pong of one ping leaves the deadline of the next one."""
    alive = Liveness(10.0, 25.0, MESSAGE_S, START_S, lambda: KEY)
    first, second = pinged(alive, 110.0), pinged(alive, 120.0)
    alive.pong(first)
    assert alive.due_s == 130.0
    pinged(alive, 130.0)
    assert alive.check(139.9) is Action.NOTHING
    alive.pong(second)
    assert alive.check(145.0) is Action.PING
    assert alive.check(154.9) is Action.NOTHING
    assert alive.check(155.0) is Action.HEARTBEAT_TIMEOUT


def test_a_pause_moves_the_deadline_of_every_ping_that_is_under_way() -> None:
    """A pause moves the deadlines of all unanswered pings."""
    alive = Liveness(10.0, 25.0, MESSAGE_S, START_S, lambda: KEY)
    first = pinged(alive, 110.0)
    pinged(alive, 120.0)
    alive.suspend(125.0)
    alive.resume(1125.0)
    alive.pong(first)
    assert alive.check(1130.0) is Action.PING
    assert alive.check(1144.9) is Action.PING
    assert alive.check(1145.0) is Action.HEARTBEAT_TIMEOUT


def test_probes_do_not_outdate_the_answer_to_the_heartbeat() -> None:
    """The pong of the heartbeat's ping counts even if probes were sent after it."""
    alive = liveness()
    ping = pinged(alive, 130.0)
    alive.ping(lambda: None)
    alive.pong(ping)
    assert alive.check(150.0) is not Action.HEARTBEAT_TIMEOUT


def test_pings_more_frequent_than_the_round_trip_keep_the_peer() -> None:
    """A peer that answers every ping in time is kept, however many pings are unanswered at a time."""
    alive = Liveness(5.0, 20.0, MESSAGE_S, START_S, lambda: KEY)
    under_way: list[tuple[float, bytes]] = []
    for step in range(200):
        now = START_S + step
        while under_way and under_way[0][0] <= now - 12.0:
            alive.pong(under_way.pop(0)[1])
        action = alive.check(now)
        assert action is not Action.HEARTBEAT_TIMEOUT
        if action is Action.PING:
            under_way.append((now, alive.ping()))


def test_answering_a_probe_alone_does_not_excuse_a_later_ping() -> None:
    """A pong for an earlier probe leaves the heartbeat's deadline."""
    alive = liveness()
    probe = alive.ping(lambda: None)
    pinged(alive, 130.0)
    alive.pong(probe)
    assert alive.check(150.0) is Action.HEARTBEAT_TIMEOUT


def test_an_unanswered_ping_keeps_its_deadline_while_more_are_sent() -> None:
    """More pings do not postpone the deadline of the first."""
    alive = Liveness(10.0, 25.0, MESSAGE_S, START_S, lambda: KEY)
    for now in (110.0, 120.0, 130.0):
        pinged(alive, now)
    assert alive.due_s == 135.0
    assert alive.check(135.0) is Action.HEARTBEAT_TIMEOUT


def test_a_message_must_be_complete_in_time() -> None:
    """A message has its time from its first byte on, which more bytes do not extend."""
    alive = liveness()
    assert alive.received(0, True, 101.0) is True
    assert alive.due_s == 116.0
    assert alive.received(0, True, 110.0) is False
    assert alive.check(115.9) is Action.NOTHING
    assert alive.check(116.0) is Action.MESSAGE_TIMEOUT


def test_a_complete_message_stops_its_clock() -> None:
    """Without an incomplete message there is no deadline for one."""
    alive = liveness()
    alive.received(0, True, 101.0)
    assert alive.received(1, False, 105.0) is False
    assert alive.due_s == START_S + INTERVAL_S


def test_the_next_message_starts_its_own_clock() -> None:
    """A chunk that ends one message and begins another starts a new deadline."""
    alive = liveness()
    alive.received(0, True, 101.0)
    assert alive.received(1, True, 110.0) is True
    assert alive.check(116.0) is Action.NOTHING
    assert alive.check(125.0) is Action.MESSAGE_TIMEOUT


def test_the_heartbeat_goes_before_the_message() -> None:
    """A peer that failed both is a heartbeat timeout."""
    alive = liveness()
    pinged(alive, 130.0)
    alive.received(0, True, 131.0)
    assert alive.check(200.0) is Action.HEARTBEAT_TIMEOUT


def test_a_suspended_peer_is_not_judged() -> None:
    """While a peer is not read from nothing is due."""
    alive = liveness()
    pinged(alive, 130.0)
    alive.received(0, True, 131.0)
    alive.suspend(132.0)
    assert alive.due_s == math.inf
    assert alive.check(1e9) is Action.NOTHING


def test_what_arrives_while_suspended_is_not_late() -> None:
    """A message that begins in the rest of a chunk has its time from when the peer is read from again."""
    alive = liveness()
    alive.suspend(101.0)
    alive.received(3, True, 101.0)
    assert alive.due_s == math.inf
    alive.resume(500.0)
    assert alive.due_s == 500.0 + MESSAGE_S


def test_a_pause_stops_every_clock() -> None:
    """The rest of the time for ping, pong and message is the same before and after a pause."""
    alive = liveness()
    alive.suspend(110.0)
    alive.resume(500.0)
    assert alive.due_s == 520.0
    pinged(alive, 520.0)
    alive.suspend(525.0)
    alive.resume(1000.0)
    assert alive.check(1014.9) is Action.NOTHING
    assert alive.check(1015.0) is Action.HEARTBEAT_TIMEOUT


def test_pausing_again_and_again_postpones_nothing() -> None:
    """Repeated pauses do not help a peer: the times in which it is read from add up."""
    alive, now, read_s = liveness(), START_S, 0.0
    while (action := alive.check(now)) is Action.NOTHING:
        alive.suspend(now)
        now += 29.0
        alive.resume(now)
        now += 1.0
        read_s += 1.0
    assert action is Action.PING
    assert read_s == INTERVAL_S


def test_resuming_without_a_pause_changes_nothing() -> None:
    """Resuming without a pause moves no deadline."""
    alive = liveness()
    alive.resume(110.0)
    assert alive.due_s == START_S + INTERVAL_S


def test_a_pong_after_a_pause_counts() -> None:
    """The pong of a ping that was sent before a pause counts."""
    alive = liveness()
    payload = pinged(alive, 130.0)
    alive.suspend(131.0)
    alive.resume(500.0)
    alive.pong(payload)
    assert alive.due_s == 529.0


def test_a_message_goes_on_after_a_pause() -> None:
    """A message that was incomplete when reading stopped has the rest of its time."""
    alive = liveness()
    alive.received(0, True, 101.0)
    alive.suspend(106.0)
    alive.resume(500.0)
    assert alive.received(0, True, 500.0) is False
    assert alive.check(500.0 + MESSAGE_S - 5.1) is Action.NOTHING
    assert alive.check(500.0 + MESSAGE_S - 5.0) is Action.MESSAGE_TIMEOUT


@given(steps=st.lists(st.tuples(st.floats(0.0, 40.0), st.booleans()), max_size=30), round_trip_s=st.floats(0.0, 19.0))
def test_a_peer_that_answers_in_time_is_never_failed(steps: list[tuple[float, bool]], round_trip_s: float) -> None:
    """In any order of checks and messages, a peer whose pongs and messages are in time is kept."""
    alive, now, messages = liveness(), START_S, 0
    for step_s, speaks in steps:
        now += step_s
        if speaks:
            alive.received(messages, True, now)
            messages += 1
            alive.received(messages, False, now)
        action = alive.check(now)
        assert action in (Action.NOTHING, Action.PING)
        if action is Action.PING:
            payload = alive.ping()
            now += round_trip_s
            alive.pong(payload)


def test_whatever_is_heard_answers_every_probe_once() -> None:
    """Received bytes answer all probes, and leave the heartbeat to its pong."""
    alive = liveness()
    answers: list[int] = []
    pinged(alive, 130.0)
    alive.ping(lambda: answers.append(1))
    alive.ping(lambda: answers.append(2))
    alive.heard()
    alive.heard()
    assert answers == [1, 2]
    assert alive.check(150.0) is Action.HEARTBEAT_TIMEOUT
