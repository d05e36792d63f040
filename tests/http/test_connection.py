"""An HTTP connection: one bounded head in bounded time, then a page, an upgrade or one refusal."""

from __future__ import annotations

import pytest
from tests.support.asking import HEALTH, SMALL, answered, ask, status
from tests.support.frames import frame
from tests.support.harness import ALICE, DATE, PATH, World, request_head

from pyryrelay.http.answering import LINGER_S
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.http.message import MAX_HEAD_BYTES
from pyryrelay.protocol import HttpRefusal, Request
from pyryrelay.runtime.timer_wheel import SLOT_S

# Outcomes


def test_an_upgrade_reaches_the_application() -> None:
    """The application is asked about the headers, then given a peer, with the same request."""
    world = World()
    connection = ask(world, request_head(f"{PATH}?x", "X-Pyrycode-Server: abc", "X-Pyrycode-Server: abd"))
    assert connection.take().startswith(b"HTTP/1.1 101 ")
    (session,) = world.application.sessions
    assert world.application.asked == [session.request]
    assert session.request.path == PATH
    assert session.request.headers["x-pyrycode-server"] == ["abc", "abd"]
    assert str(session.request.client) == ALICE
    assert world.gate.leases.connections_by_route == {"server": 1}
    assert world.gate.leases.handshakes == 0
    assert not world.context.waiting
    assert world.observer.refusals == []


def test_frames_right_behind_the_head_are_delivered() -> None:
    """Frames of a client that does not wait for the 101 are delivered."""
    world = World()
    ask(world, request_head() + frame(b"early"))
    assert world.application.sessions[0].received == [(b"early", False)]


def test_the_head_may_come_in_pieces() -> None:
    """A head may be cut at any byte."""
    data = request_head() + frame(b"early")
    for cut in range(len(data) + 1):
        world = World()
        connection = world.connect()
        connection.feed(data[:cut])
        connection.feed(data[cut:])
        assert world.application.sessions[0].received == [(b"early", False)], cut
    world = World()
    connection = world.connect()
    for at in range(len(data)):
        connection.feed(data[at : at + 1])
    assert world.application.sessions[0].received == [(b"early", False)]


@pytest.mark.parametrize(("method", "body"), [("GET", b"ok"), ("HEAD", b"")])
def test_a_page(method: str, body: bytes) -> None:
    """A page is answered with its fields and its body, which HEAD leaves out."""
    connection = ask(World(), HEALTH.replace(b"GET", method.encode()))
    assert answered(connection) == (
        b"HTTP/1.1 200 OK" + DATE + b"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\n" + body
    )


def test_pages_are_exempt_from_the_quota() -> None:
    """A client without tokens or without an address still gets a page, and pages spend nothing."""
    world = World(gate=SMALL)
    for _ in range(50):
        connection = ask(world, HEALTH)
        assert status(connection) == 200
        connection.settle()
    assert world.tokens_spent() == 0
    assert status(ask(world, HEALTH)) == 200
    assert world.observer.refusals == []


# Refusals


@pytest.mark.parametrize(
    ("data", "code", "route", "reason", "field"),
    [
        (b"nonsense\r\n\r\n", 400, None, "bad_head", b""),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, None, "bad_head", b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431, None, "bad_head", b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404, None, "unknown_path", b""),
        (HEALTH.replace(b"GET", b"POST"), 405, None, "bad_method", b"\r\nAllow: GET, HEAD\r\n"),
        (request_head(method="POST"), 405, "server", "bad_method", b"\r\nAllow: GET\r\n"),
        (request_head(without=["Upgrade"]), 426, "server", "no_upgrade", b"\r\nUpgrade: websocket\r\n"),
        (request_head(without=["Upgrade"]), 426, "server", "no_upgrade", b"\r\nSec-WebSocket-Version: 13\r\n"),
        (request_head(without=["Sec-WebSocket-Key"]), 400, "server", "bad_handshake", b""),
    ],
)
def test_refusals_by_the_head(data: bytes, code: int, route: str | None, reason: str, field: bytes) -> None:
    """An invalid head gets its status, and is observed once, under the application's name."""
    world = World()
    connection = ask(world, data)
    answer = answered(connection)
    assert int(answer.split()[1]) == code
    assert field in answer
    assert b"\r\nContent-Length: 0\r\n" in answer
    assert world.observer.refusals == [(route, code, reason, ALICE)]
    connection.feed(data)
    assert connection.take() == b""
    connection.settle()
    world.assert_empty()


def test_the_application_refuses_headers() -> None:
    """The client and the observer get the status and reason of the header gate."""
    world = World()
    world.application.gate = lambda request: HttpRefusal(400, "missing_header")
    assert status(ask(world, request_head())) == 400
    assert world.observer.refusals == [("server", 400, "missing_header", ALICE)]
    assert world.application.sessions == []


def test_a_repeated_header_is_400() -> None:
    """A repeated header that the application wants once is refused."""
    world = World()

    def gate(request: Request) -> HttpRefusal | None:
        assert request.header("x-absent") == ""
        return HttpRefusal(400, "never") if request.header("x-a") else None

    world.application.gate = gate
    assert status(ask(world, request_head(PATH, "X-A: secret", "x-a: other"))) == 400
    assert world.observer.refusals == [("server", 400, "repeated_header", ALICE)]


def test_a_header_gate_that_fails_costs_only_its_connection() -> None:
    """An error of the header gate leaves no lease behind."""
    world = World()

    def gate(request: Request) -> HttpRefusal | None:
        raise RuntimeError("secret")

    world.application.gate = gate
    connection = world.connect()
    try:
        connection.feed(request_head())
    except RuntimeError:
        connection.transport.lose()
    connection.settle()
    assert b"secret" not in connection.take()
    world.assert_empty()


@pytest.mark.parametrize("ending", [b"", b"\r\n", b"\r\n\r\n"])
def test_an_oversized_head_is_431(ending: bytes) -> None:
    """A head over the limit is refused and forgotten, with or without an end."""
    world = World()
    connection = ask(world, b"GET / HTTP/1.1\r\nHost: a\r\nX: ".ljust(MAX_HEAD_BYTES + 1, b"x") + ending)
    assert status(connection) == 431
    assert world.observer.refusals == [(None, 431, "head_too_large", ALICE)]
    assert len(connection.protocol._received) == 0


def test_the_largest_head_is_read() -> None:
    """A head of exactly the limit is accepted, whatever follows it; one byte more is not."""
    start, end = request_head()[:-2] + b"X: ", b"\r\n\r\n"
    whole = start.ljust(MAX_HEAD_BYTES - len(end), b"x") + end
    world = World()
    assert ask(world, whole + frame(b"x" * 50_000)).take().startswith(b"HTTP/1.1 101 ")
    assert status(ask(world, start + b"x" + whole[len(start) :])) == 431
    connection = ask(world, whole[:-1])
    assert connection.take() == b""
    connection.feed(whole[-1:])
    assert connection.take().startswith(b"HTTP/1.1 101 ")


# Time


def test_a_slow_head_is_408_at_the_deadline() -> None:
    """A peer with an incomplete head gets 408 at the deadline, and is cut off if it does not close."""
    world = World()
    connection = ask(world, request_head()[:-1])
    world.pass_time(HEAD_TIMEOUT_S - 0.25)
    connection.feed(b"")
    assert connection.take() == b""
    world.pass_time(0.25 + 2 * SLOT_S)
    assert status(connection) == 408
    assert world.observer.refusals == [(None, 408, "slow_head", ALICE)]
    assert not connection.is_cut_off()
    world.pass_time(LINGER_S + 2 * SLOT_S)
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()


def test_more_bytes_do_not_extend_the_deadline() -> None:
    """More bytes do not extend the deadline of a head."""
    world = World()
    connection = world.connect()
    for byte in request_head()[:23]:
        world.pass_time(0.25)
        connection.feed(bytes((byte,)))
    assert status(connection) == 408


def test_a_silent_connection_is_dropped_without_an_answer() -> None:
    """A connection that sends nothing is aborted at the deadline without an answer."""
    world = World()
    connection = world.connect()
    world.pass_time(HEAD_TIMEOUT_S + 2 * SLOT_S)
    assert connection.is_cut_off()
    assert connection.take() == b""
    assert world.observer.refusals == []
    connection.settle()
    world.assert_empty()


@pytest.mark.parametrize("data", [HEALTH, request_head("/nowhere"), request_head(without=["Upgrade"])])
def test_an_answered_peer_that_does_not_close_is_cut_off(data: bytes) -> None:
    """A peer that stays after its answer, or never takes it, is cut off after the linger time."""
    world = World()
    connection = world.connect()
    connection.transport.peer_reads = False
    connection.feed(data)
    world.pass_time(LINGER_S - 0.25)
    assert not connection.is_cut_off()
    world.pass_time(0.25 + 2 * SLOT_S)
    assert connection.is_cut_off()
    connection.settle()
    world.assert_empty()
