"""Wakes: what is sent, what is repeated, what is dropped, and what is left of a token."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.push import (
    ACCESS,
    PUSH_PORT,
    PUSH_URL,
    SENT,
    TOKEN,
    TOKEN_PORT,
    Line,
    PushServices,
    Received,
    fcm_error,
)
from twisted.internet.error import ConnectionRefusedError as RefusedError

from pyryrelay.pyry.envelope import PushWake
from pyryrelay.pyry.push.limits import MAX_IN_FLIGHT, WakeLimits
from pyryrelay.pyry.push.outcomes import Outcome
from pyryrelay.pyry.push.requests import ANSWER_S
from pyryrelay.pyry.push.wakes import STOP_S, Target, Wakes

URL = f"{PUSH_URL}/v1/projects/my-project/messages:send"
UNREGISTERED = fcm_error("NOT_FOUND", "UNREGISTERED", TOKEN)
WAKE = PushWake("fcm", TOKEN)


class Ended:
    """Records what became of wakes."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, str, int]] = []

    def wake_ended(self, server_id: str, outcome: Outcome, reason: str, connection: int) -> None:
        self.log.append((server_id, str(outcome), str(reason), connection))

    @property
    def last(self) -> tuple[str, str]:
        """Return outcome and reason of the last one."""
        return self.log[-1][1:3]


class World:
    """A sender of wakes, the services, and what became of the wakes."""

    def __init__(self, *, is_reported: bool = True) -> None:
        self.services = PushServices()
        self.clock = self.services.clock
        self.ended = Ended()
        self.dead = 0
        self.wakes = Wakes(self.ended, WakeLimits(), self.clock.seconds, self.clock.callLater, lambda: 1.0)
        self.tokens = self.services.tokens()
        self.wakes.target = Target(URL, self.tokens, self.services.requests, is_reported)

    def wake(self, server_id: str = "sid", wake: PushWake = WAKE) -> None:
        """Ask for a wake."""
        self.wakes.wake(server_id, wake, 7, self._report)

    def _report(self) -> None:
        self.dead += 1

    def begun(self, server_id: str = "sid") -> tuple[Line, Received]:
        """Ask for a wake, and return its request at the service, with the access token that it needs."""
        self.wake(server_id)
        if not any(line.port == TOKEN_PORT for line in self.services.lines):
            self.services.grant()
        return self.services.next()


@pytest.fixture
def world() -> World:
    """A sender that has not sent anything."""
    return World()


def test_what_is_sent(world: World) -> None:
    """The request is FCM's, of high priority, without data and without a notification."""
    line, received = world.begun()
    assert received.target == "/v1/projects/my-project/messages:send"
    assert received.fields["authorization"] == f"Bearer {ACCESS}"
    assert received.fields["content-type"] == "application/json"
    assert json.loads(received.body) == {"message": {"token": TOKEN, "android": {"priority": "HIGH"}}}
    line.answer(body=SENT)
    assert world.ended.log == [("sid", "sent", "", 7)]
    assert world.dead == 0


@pytest.mark.parametrize("text", ['"}', "\\", "\x00\r\n", "\u2603", "a" * 4096])
def test_tokens_may_hold_anything(world: World, text: str) -> None:
    """A token is a JSON string of the body, and can be nothing else."""
    world.wake(wake=PushWake("fcm", text))
    world.services.grant()
    _, received = world.services.next()
    assert json.loads(received.body)["message"]["token"] == text


def test_a_dead_token_is_reported(world: World) -> None:
    """The binary that asked is told, once."""
    line, _ = world.begun()
    line.answer(404, UNREGISTERED)
    assert world.ended.last == ("unregistered", "UNREGISTERED")
    assert world.dead == 1


def test_reports_can_be_off() -> None:
    """Without feedback, a dead token is counted and logged only."""
    world = World(is_reported=False)
    line, _ = world.begun()
    line.answer(404, UNREGISTERED)
    assert world.ended.last == ("unregistered", "UNREGISTERED")
    assert world.dead == 0


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, fcm_error("INVALID_ARGUMENT", "INVALID_ARGUMENT", TOKEN), "INVALID_ARGUMENT"),
        (403, fcm_error("PERMISSION_DENIED", "SENDER_ID_MISMATCH"), "SENDER_ID_MISMATCH"),
        (302, b"", "HTTP 302"),
        (200, b"{", "malformed"),
        (200, b"x" * 5000, "too_large"),
    ],
)
def test_what_is_not_repeated(world: World, status: int, body: bytes, reason: str) -> None:
    """Most errors would only be repeated too."""
    line, _ = world.begun()
    line.answer(status, body, f"Location: {PUSH_URL}/{TOKEN}\r\n")
    assert world.ended.last == ("send_failed", reason)
    world.clock.advance(3600)
    assert world.services.is_quiet()
    assert world.dead == 0


def test_a_refused_access_token_is_replaced_once(world: World) -> None:
    """401 for a token that was kept for a while: a new one is fetched, and the wake is sent again, once."""
    line, _ = world.begun()
    line.answer(body=SENT)
    world.clock.advance(61)
    line, _ = world.begun("other")
    line.answer(401, fcm_error("UNAUTHENTICATED"))
    world.services.grant("at-2")
    line, received = world.services.next()
    assert received.fields["authorization"] == "Bearer at-2"
    line.answer(401, fcm_error("UNAUTHENTICATED"))
    assert world.ended.last == ("send_failed", "UNAUTHENTICATED")
    assert world.services.is_quiet()


def test_a_fresh_access_token_is_not_replaced(world: World) -> None:
    """401 for a new token is final: a project without FCM would cause a fetch for each wake."""
    line, _ = world.begun()
    line.answer(401, fcm_error("UNAUTHENTICATED"))
    assert world.ended.last == ("send_failed", "UNAUTHENTICATED")
    assert world.services.is_quiet()


def test_many_refusals_cause_one_fetch(world: World) -> None:
    """Wakes that are refused together share the new token."""
    world.begun()[0].answer(body=SENT)
    world.clock.advance(61)
    lines = [world.begun(f"id-{number}")[0] for number in range(10)]
    for line in lines:
        line.answer(401, fcm_error("UNAUTHENTICATED"))
    world.services.grant("at-2")
    assert [world.services.next()[1].fields["authorization"] for _ in lines] == ["Bearer at-2"] * 10


def test_an_error_of_the_service_is_repeated_once(world: World) -> None:
    """503: the wake is sent again after 10 s, and then given up."""
    line, _ = world.begun()
    line.answer(503, fcm_error("UNAVAILABLE", "UNAVAILABLE"))
    world.clock.advance(9.9)
    assert world.services.is_quiet()
    world.clock.advance(0.1)
    line, received = world.services.next()
    assert json.loads(received.body)["message"]["token"] == TOKEN
    line.answer(503)
    assert world.ended.log == [("sid", "send_failed", "HTTP 503", 7)]
    world.clock.advance(3600)
    assert world.services.is_quiet()


def test_a_repeated_wake_may_succeed(world: World) -> None:
    """The time to wait is that of Retry-After."""
    line, _ = world.begun()
    line.answer(500, b"", "Retry-After: 2\r\n")
    world.clock.advance(2)
    world.services.next()[0].answer(body=SENT)
    assert world.ended.log == [("sid", "sent", "", 7)]


@pytest.mark.parametrize(("status", "seconds"), [(429, 60), (503, 300)])
def test_a_pause(world: World, status: int, seconds: int) -> None:
    """429, and a long Retry-After: all wakes are dropped until then, and none is sent."""
    line, _ = world.begun()
    line.answer(status, b"", "" if status == 429 else f"Retry-After: {seconds}\r\n")
    assert world.ended.last == ("send_failed", f"HTTP {status}")
    world.clock.advance(seconds - 1)
    world.wake("other")
    assert world.ended.last == ("dropped", "paused")
    assert world.services.is_quiet()
    world.clock.advance(1)
    world.begun("other")


def test_a_lost_connection_is_repeated_at_once(world: World) -> None:
    """A connection that was kept may be closed by the service just as it is used."""
    line, _ = world.begun()
    line.answer(body=SENT)
    again, _ = world.begun()
    assert again is line
    line.lose()
    world.clock.advance(0)
    fresh, _ = world.services.next()
    assert fresh is not line
    fresh.lose()
    world.clock.advance(0)
    assert world.ended.last == ("send_failed", "connection_lost")
    assert world.services.is_quiet()


def test_no_connection(world: World) -> None:
    """A service that refuses connections is not asked again for this wake."""
    world.wake()
    world.services.grant()
    world.services.refuse(RefusedError())
    world.clock.advance(1)
    assert world.ended.last == ("send_failed", "refused")
    assert world.services.is_quiet()


def test_a_slow_service(world: World) -> None:
    """A wake takes 10 s at most for each of its requests."""
    world.begun()
    world.clock.advance(ANSWER_S)
    assert world.ended.last == ("send_failed", "timeout")


def test_no_access_token(world: World) -> None:
    """All wakes that wait for a token fail, and later ones at once."""
    world.wake()
    world.wake("other")
    line, _ = world.services.next(TOKEN_PORT)
    line.answer(400, b'{"error":"invalid_grant","error_description":"s3cr3t"}')
    world.wake("third")
    assert world.ended.log == [(name, "token_fetch_failed", "invalid_grant", 7) for name in ("sid", "other", "third")]
    assert world.services.is_quiet()


def test_a_flood_of_one_server_id(world: World) -> None:
    """Six wakes of 10,000 are sent, and all others are dropped."""
    for _ in range(10_000):
        world.wake()
    world.services.grant()
    for _ in range(6):
        world.services.next()[0].answer(body=SENT)
    assert world.services.is_quiet()
    outcomes = [outcome for _, outcome, _, _ in world.ended.log]
    assert (outcomes.count("sent"), outcomes.count("dropped")) == (6, 9994)


def test_a_flood_of_many_server_ids(world: World) -> None:
    """With a slow service, 32 wakes are in flight, and all others are dropped."""
    for number in range(1000):
        world.wake(f"id-{number}")
    world.services.grant()
    world.services.accept()
    assert sum(line.port == PUSH_PORT for line in world.services.lines) == MAX_IN_FLIGHT
    assert len(world.ended.log) == 1000 - MAX_IN_FLIGHT
    assert world.ended.last == ("dropped", "in_flight")
    world.clock.advance(ANSWER_S)
    assert len(world.ended.log) == 1000
    world.begun("late")


def test_what_cannot_be_sent(world: World) -> None:
    """Other platforms and empty tokens are dropped without a request."""
    world.wake(wake=PushWake("apns", TOKEN))
    assert world.ended.last == ("dropped", "platform")
    world.wake(wake=PushWake("fcm", ""))
    assert world.ended.last == ("dropped", "token")
    assert world.services.is_quiet()


def test_the_token_is_kept_as_long_as_the_wake(world: World) -> None:
    """When the answer is there, nothing refers to the token any more, whatever the answer was."""
    token = "".join(["a-token-", "of-its-own"])
    before = sys.getrefcount(token)
    for status, body in ((200, SENT), (404, UNREGISTERED), (400, b""), (429, b"")):
        world.wake(wake=PushWake("fcm", token))
        if not world.services.lines:
            world.services.grant()
        world.services.next()[0].answer(status, body)
        assert sys.getrefcount(token) == before


def test_the_text_of_a_wake_has_no_token(world: World) -> None:
    """What a debugger or a traceback could show of a wake leaves the token out."""
    assert TOKEN not in repr(WAKE)
    assert TOKEN not in str(WAKE)
    world.begun()
    assert TOKEN not in repr(world.wakes._sending)


# The end


def test_an_end_without_wakes(world: World) -> None:
    """There is nothing to wait for, and no wake begins any more."""
    assert world.wakes.stop() is None
    world.wake()
    assert world.ended.last == ("dropped", "stopping")


def test_wakes_in_flight_may_end(world: World) -> None:
    """The relay waits for them."""
    line, _ = world.begun()
    stopped: list[Any] = []
    waiting = world.wakes.stop()
    assert waiting is not None
    waiting.addCallback(stopped.append)
    assert stopped == []
    line.answer(body=SENT)
    assert stopped == [None]
    assert world.ended.last == ("sent", "")


@pytest.mark.parametrize("at", ["token", "answer", "repeat", "body"])
def test_wakes_that_take_longer_are_dropped(world: World, at: str) -> None:
    """After 3 s, whatever they wait for, they are cancelled, and nothing is left to do."""
    world.wake()
    if at != "token":
        world.services.grant()
        line, _ = world.services.next()
        if at == "repeat":
            line.answer(503)
        elif at == "body":
            line.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
    else:
        world.services.accept()
    stopped: list[Any] = []
    waiting = world.wakes.stop()
    assert waiting is not None
    waiting.addCallback(stopped.append)
    world.clock.advance(STOP_S)
    assert stopped == [None]
    assert world.ended.log == [("sid", "dropped", "stopping", 7)]
    world.services.outgoing.close()
    world.clock.advance(1)
    assert not [call for call in world.clock.getDelayedCalls() if call.active()]


answers = st.tuples(
    st.sampled_from([200, 204, 302, 400, 401, 403, 404, 429, 500, 503]),
    st.sampled_from([SENT, b"", b"{}", UNREGISTERED, fcm_error("NOT_FOUND")]) | st.binary(max_size=30),
    st.sampled_from(["", "1", "31", "x"]),
)


@given(st.lists(answers, min_size=1, max_size=4))
def test_a_wake_has_one_end(answers: list[tuple[int, bytes, str]]) -> None:
    """Whatever the answers are, a wake is sent at most twice and ends once."""
    world = World()
    world.wake()
    world.services.grant()
    sent = 0
    for status, body, retry_after in answers:
        for _ in range(40):
            if not world.services.is_quiet():
                break
            world.clock.advance(1)
        else:
            break
        sent += 1
        world.services.next()[0].answer(status, body, f"Retry-After: {retry_after}\r\n" if retry_after else "")
    for _ in range(60):
        world.clock.advance(1)
    assert sent <= 2
    assert len(world.ended.log) == 1
    assert TOKEN not in repr(world.ended.log)
    assert world.wakes.stop() is None
