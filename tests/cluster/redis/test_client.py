"""The client of one server: it comes back by itself, and makes nobody wait."""

from __future__ import annotations

import pytest
from tests.support.fake_redis import HELLO, TIME, FakeServer
from twisted.internet.defer import Deferred

from pyryrelay.cluster.redis.client import FIRST_RETRY_S, LAST_RETRY_S, LOOK_S
from pyryrelay.cluster.redis.interface import AnswerError, DownError, Script

SCRIPT = Script("return ARGV[1]")
OTHER = Script("return 2")


def outcome(call: Deferred[object]) -> list[object]:
    """Return the list that has, or will have, the outcome of a call."""
    got: list[object] = []
    call.addBoth(lambda value: got.append(getattr(value, "value", value)))
    return got


@pytest.fixture
def server() -> FakeServer:
    """A server that does nothing by itself, and its client, which is not started."""
    return FakeServer()


def test_a_server_is_used_when_it_has_greeted(server: FakeServer) -> None:
    """Before that, calls fail at once."""
    early = outcome(server.client.call(SCRIPT, ["k"]))
    server.client.start()
    assert server.wire.names == ["HELLO"]
    server.wire.answer(HELLO)
    assert server.changes == []
    early += outcome(server.client.command("PING"))
    assert [type(each) for each in early] == [DownError, DownError]
    server.wire.answer(TIME)
    assert server.client.is_up
    assert server.changes == [""]
    assert server.client.server is not None
    assert server.client.server.version == "7.0.1"
    assert server.client.ahead_s == 1_790_000_000.25 - 100.0
    assert server.client.figures.skew_s == 0.25
    assert server.client.figures.refused == 2


def test_a_script_is_sent_whole_once_for_each_connection(server: FakeServer) -> None:
    """Afterwards its name is enough."""
    wire = server.begin()
    got = [outcome(server.client.call(SCRIPT, ["k"], [number, b"x", "y"])) for number in (1, 2)]
    assert wire.asked == [
        [b"EVAL", SCRIPT.source.encode(), b"1", b"k", b"1", b"x", b"y"],
        [b"EVALSHA", SCRIPT.sha.encode(), b"1", b"k", b"2", b"x", b"y"],
    ]
    wire.answer(b"+1\r\n+2\r\n")
    assert got == [[b"1"], [b"2"]]
    wire.close()
    server.clock.advance(FIRST_RETRY_S)
    server.wire.greet()
    server.client.call(SCRIPT, []).addErrback(lambda failure: None)
    assert server.wire.names[-1] == "EVAL"


def test_a_forgotten_script_is_sent_whole_again(server: FakeServer) -> None:
    """SCRIPT FLUSH costs one more round trip, and nobody notices."""
    wire = server.begin()
    outcome(server.client.call(SCRIPT, []))
    got = outcome(server.client.call(SCRIPT, [], ["a"]))
    wire.answer(b"+0\r\n-NOSCRIPT No matching script.\r\n")
    assert wire.names == ["EVAL", "EVALSHA", "EVAL"]
    assert got == []
    wire.answer(b"+a\r\n")
    assert got == [b"a"]


def test_an_error_of_a_script_is_its_caller_s(server: FakeServer) -> None:
    """The connection goes on."""
    wire = server.begin()
    got = outcome(server.client.call(SCRIPT, [])) + outcome(server.client.command("GET", "x"))
    outcomes = [outcome(server.client.call(OTHER, [])), outcome(server.client.command("GET"))]
    wire.answer(b"+1\r\n+2\r\n-ERR script\r\n-NOPERM no\r\n")
    assert got == []
    assert [type(each[0]) for each in outcomes] == [AnswerError, AnswerError]
    assert server.client.is_up


def test_an_error_without_a_word_is_none_the_less_one(server: FakeServer) -> None:
    """A server that answers its greeting with an empty error is not taken for one that can be used."""
    server.client.start()
    server.wire.answer(b"-\r\n")
    assert not server.client.is_up
    assert server.changes == ["it refused without a word"]


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (b"-READONLY You can't write against a read only replica.", "it is a replica"),
        (b"-ERR Error running script: -READONLY You can't write", "it is a replica"),
        (b"-LOADING Redis is loading the dataset in memory", "it loads its data"),
        (b"-MOVED 3999 127.0.0.1:6381", "it belongs to a Redis Cluster, which is not supported"),
        (b"-NOAUTH Authentication required.", "it wants a password"),
    ],
)
def test_a_server_that_can_serve_no_more_is_left(server: FakeServer, error: bytes, problem: str) -> None:
    """After a failover, for example, the primary is elsewhere."""
    wire = server.begin()
    got = outcome(server.client.call(SCRIPT, []))
    behind = outcome(server.client.call(SCRIPT, []))
    wire.answer(error + b"\r\n")
    assert isinstance(got[0], DownError)
    assert str(got[0]).startswith(problem)
    assert isinstance(behind[0], DownError)
    assert wire.is_aborted
    assert server.changes[-1].startswith(problem)
    server.clock.advance(FIRST_RETRY_S)
    server.wire.greet()
    assert server.client.is_up


@pytest.mark.parametrize(
    ("hello", "problem"),
    [
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "it refuses the user name or"),
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "it wants a password"),
        (b"-ERR unknown command `HELLO`, with args beginning with: \r\n", "it is too old: 6.2 or newer is needed"),
        (HELLO.replace(b"7.0.1", b"5.0.7"), "it is redis 5.0.7: 6.2 or newer"),
        (HELLO.replace(b"$10\r\nstandalone", b"$7\r\ncluster"), "it belongs to a Redis Cluster"),
        (HELLO.replace(b"$6\r\nmaster", b"$5\r\nslave"), "it is a slave, which cannot be written to"),
        (b"-ERR max number of clients reached\r\n", "ERR max number of clients reached"),
        (b"+OK\r\n", "it is ? 0"),
    ],
)
def test_a_server_that_cannot_be_used_is_asked_again(server: FakeServer, hello: bytes, problem: str) -> None:
    """It may be put right while the relay runs; the reason is told each time."""
    server.client.start()
    server.wire.greet(hello) if hello[:1] == b"*" else server.wire.answer(hello)
    assert server.changes[-1].startswith(problem)
    assert server.wire.is_aborted
    server.clock.advance(FIRST_RETRY_S)
    server.wire.answer(hello)
    assert len(server.changes) == 2
    server.clock.advance(2 * FIRST_RETRY_S)
    server.wire.greet()
    assert server.client.is_up


def test_a_server_that_loads_its_data_is_not_used_yet(server: FakeServer) -> None:
    """It greets, but does not serve."""
    server.client.start()
    server.wire.answer(HELLO + b"-LOADING Redis is loading the dataset in memory\r\n")
    assert server.changes == ["it loads its data"]


def test_connections_are_tried_less_often_up_to_once_a_second(server: FakeServer) -> None:
    """For as long as it takes; success begins anew."""
    server.refusal = "connection refused"
    server.client.start()
    for expected in (0.1, 0.2, 0.4, 0.8, LAST_RETRY_S, LAST_RETRY_S):
        (call,) = server.clock.getDelayedCalls()
        assert call.getTime() - server.now() == pytest.approx(expected)
        server.clock.advance(expected)
    assert server.changes == ["connection refused"] * 7
    server.refusal = ""
    server.clock.advance(LAST_RETRY_S)
    server.wire.greet()
    server.wire.close()
    assert server.client.figures.outages == 1
    (call,) = server.clock.getDelayedCalls()
    assert call.getTime() - server.now() == pytest.approx(FIRST_RETRY_S)


def test_a_server_that_has_stopped_is_noticed_although_nobody_calls(server: FakeServer) -> None:
    """The client asks for the time once a second."""
    wire = server.begin()
    server.clock.advance(LOOK_S)
    assert wire.names == ["TIME"]
    wire.answer(TIME)
    server.clock.advance(LOOK_S)
    server.clock.advance(0.5)
    assert wire.is_aborted
    assert server.changes == ["", "no answer in 0.5 s"]


def test_a_slow_greeting_is_not_waited_for(server: FakeServer) -> None:
    """The kernel accepts connections for a server that has stopped."""
    server.client.start()
    server.clock.advance(0.5)
    assert server.wire.is_aborted
    server.clock.advance(FIRST_RETRY_S)
    assert len(server.wires) == 2


def test_a_login_that_cannot_be_read_is_told_and_tried_again(server: FakeServer) -> None:
    """A password file may come later."""
    problems = [OSError(2, "No such file or directory", "/x/pw")]

    def login() -> tuple[str, ...]:
        if problems:
            raise problems.pop()
        return ("HELLO", "2")

    server.client._login = login
    server.client.start()
    assert server.changes == ["/x/pw: No such file or directory"]
    server.clock.advance(FIRST_RETRY_S)
    server.wire.greet()
    assert server.client.is_up


@pytest.mark.parametrize("greets", [False, True])
def test_a_stopped_client_stays_away(server: FakeServer, greets: bool) -> None:
    """It ends the connection, and makes no other one."""
    server.client.start()
    if greets:
        server.wire.greet()
    waiting = outcome(server.client.command("GET", "x"))
    server.client.stop()
    assert isinstance(waiting[0], DownError)
    assert isinstance(outcome(server.client.command("GET", "x"))[0], DownError)
    server.clock.advance(10.0)
    assert len(server.wires) == 1
    assert not server.clock.getDelayedCalls()


def test_a_client_that_stops_while_it_connects_drops_the_connection(server: FakeServer) -> None:
    """Whenever that comes."""
    server.client.start()
    server.wire.answer(HELLO)
    server.client.stop()
    assert server.wire.is_aborted
    server.refusal = "down"
    other = FakeServer()
    other.refusal = "down"
    other.client.start()
    other.client.stop()
    other.clock.advance(10.0)
    assert other.changes == ["down"]


def test_a_database_is_selected(server: FakeServer) -> None:
    """Before anything else is asked."""
    server.client._database = 3
    server.client.start()
    server.wire.answer(HELLO)
    assert server.wire.asked[-1] == [b"SELECT", b"3"]
    server.wire.answer(b"+OK\r\n" + TIME)
    assert server.client.is_up


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer_that_does_not_fit_ends_the_connection(server: FakeServer, whole: bool) -> None:
    """A proxy that has lost an answer gives the next one to the wrong question, and so on."""
    script = Script("return {1, 2}", lambda answer, keys: answer == [1] * keys)
    wire = server.begin()
    if not whole:
        fits = outcome(server.client.call(script, ["k", "l"]))
        wire.answer(b"*2\r\n:1\r\n:1\r\n")
        assert fits == [[1, 1]]
    outcomes = [outcome(server.client.call(script, ["k", "l"])), outcome(server.client.command("GET", "x"))]
    wire.answer(b"*1\r\n:1\r\n")
    assert [type(each[0]) for each in outcomes] == [DownError, DownError]
    assert "does not fit" in str(outcomes[0][0])
    assert wire.is_aborted
    assert server.changes[-1] == "an answer does not fit what was asked"
    server.clock.advance(FIRST_RETRY_S)
    server.wire.greet()
    assert server.client.is_up


@pytest.mark.parametrize("answer", [b":7\r\n", b"$-1\r\n", b"*1\r\n:1\r\n", b"*2\r\n$1\r\nx\r\n$1\r\n1\r\n"])
@pytest.mark.parametrize("is_greeting", [True, False])
def test_a_time_that_is_none_ends_the_connection(server: FakeServer, answer: bytes, is_greeting: bool) -> None:
    """Whenever it comes, and nothing else goes wrong."""
    if is_greeting:
        server.client.start()
        server.wire.answer(HELLO)
    else:
        server.begin()
        server.clock.advance(LOOK_S)
        assert server.wire.names[-1] == "TIME"
    wire = server.wire
    wire.answer(answer)
    assert wire.is_aborted
    assert server.changes[-1] == "an answer does not fit what was asked"
