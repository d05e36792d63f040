"""One connection: answers in order, and never one too late."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from tests.support.fake_redis import FakeServer, Wire
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall

from pyryrelay.cluster.redis.connection import LATE_S, MAX_WAITING, Connection
from pyryrelay.cluster.redis.interface import CALL_TIMEOUT_S, AnswerError, DownError
from pyryrelay.cluster.redis.tls_words import CLOSED_AT_ONCE, NO_TLS


class Case:
    """A connection that is open, and what it told."""

    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()
        self.took: list[float] = []
        self.ends: list[str] = []
        self.connection = Connection(self.server, self.took.append, self.ends.append)
        self.server.connect(self.connection)
        self.wire: Wire = self.server.wire

    def send(self, *words: str) -> list[object]:
        """Send a command; return the list that will have its outcome."""
        outcome: list[object] = []
        self.connection.send(words).addBoth(lambda got: outcome.append(getattr(got, "value", got)))
        return outcome


ANSWERS = b"+OK\r\n:7\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n:1\r\n*1\r\n$1\r\nx\r\n-ERR no\r\n"
READ = [b"OK", 7, b"a\r\n", None, [1, [b"x"]]]


@given(cuts=st.lists(st.integers(1, len(ANSWERS) - 1), max_size=8))
def test_answers_may_come_in_any_pieces(cuts: list[int]) -> None:
    """However TCP divides them, each goes to the command that has waited longest."""
    case = Case()
    outcomes = [case.send("GET", str(number)) for number in range(6)]
    ends = [0, *sorted(cuts), len(ANSWERS)]
    for begin, end in pairwise(ends):
        case.wire.answer(ANSWERS[begin:end])
    assert [outcome[0] for outcome in outcomes[:5]] == READ
    assert isinstance(outcomes[5][0], AnswerError)
    assert str(outcomes[5][0]) == "ERR no"
    assert len(case.took) == 6
    assert case.connection.waiting == 0


def test_the_deadline_is_that_of_the_connection() -> None:
    """One that waits for news has more time."""
    case = Case()
    patient = Connection(case.server, case.took.append, case.ends.append, 1.5)
    case.server.connect(patient)
    failed: list[object] = []
    patient.send(("XREAD",)).addErrback(lambda failure: failed.append(failure.type))
    case.server.clock.advance(1.4)
    assert failed == []
    case.server.clock.advance(0.1)
    assert failed == [DownError]
    assert case.ends == ["no answer in 1.5 s"]


def test_an_answer_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut off before it takes all memory; the length of all answers together does not matter."""
    monkeypatch.setattr("pyryrelay.cluster.redis.connection.MAX_ANSWER_BYTES", 1000)
    case = Case()
    answered, cut_off = case.send("GET", "a"), case.send("GET", "b")
    case.wire.answer(b"$990\r\n" + b"x" * 990)
    case.wire.answer(b"\r\n$2000\r\n" + b"x" * 990)
    assert answered == [b"x" * 990]
    assert cut_off == []
    case.wire.answer(b"x" * 1001)
    assert isinstance(cut_off[0], DownError)
    assert case.ends == ["an answer has more than 1000 bytes"]
    assert case.wire.is_aborted


def test_an_error_among_answers_fails_its_own_command() -> None:
    """The commands around it do not notice."""
    case = Case()
    before, failed, after = case.send("A"), case.send("B"), case.send("C")
    case.wire.answer(b"+1\r\n-WRONGTYPE x\r\n+2\r\n")
    assert (before, str(failed[0]), after) == ([b"1"], "WRONGTYPE x", [b"2"])


def test_a_late_answer_ends_the_connection() -> None:
    """It would be taken for the answer of the next command; all that wait fail, and what comes later is not read."""
    case = Case()
    first = case.send("A")
    case.server.clock.advance(CALL_TIMEOUT_S / 2)
    second = case.send("B")
    case.server.clock.advance(CALL_TIMEOUT_S / 2)
    assert case.wire.is_aborted
    assert [str(outcome[0]) for outcome in (first, second)] == ["no answer in 0.5 s"] * 2
    case.wire.answer(b"+late\r\n+later\r\n")
    assert len(first + second) == 2
    assert case.ends == ["no answer in 0.5 s"]
    assert not case.server.clock.getDelayedCalls()


class Busy(FakeServer):
    """The reactor of a process that is kept busy: due calls are made when the test says `turn`."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[Callable[[], object]] = []

    def call_later(self, delay_s: float, call: Callable[[], object]) -> IDelayedCall:
        """Keep a call."""
        self.due.append(call)
        return DelayedCall(0.0, call, (), {}, lambda cancelled: None, lambda reset: None)

    def turn(self) -> None:
        """Make the calls that are due, which comes before anything is read."""
        due, self.due = self.due, []
        for call in due:
            call()


def test_a_process_that_was_kept_busy_reads_first() -> None:
    """Its timers are late, and what the server has answered in time is still to be read, perhaps in several pieces."""
    busy = Busy()
    case = Case(busy)
    answered = case.send("A")
    busy.clock.advance(CALL_TIMEOUT_S + 1)
    for piece in (b"$10\r\n1234", b"567890", b"\r\n"):
        busy.turn()
        case.wire.answer(piece)
    assert answered == [b"1234567890"]
    busy.turn()
    assert (case.ends, busy.due) == ([], [])
    failed = case.send("B")
    busy.clock.advance(CALL_TIMEOUT_S)
    busy.turn()
    assert failed == []
    busy.turn()
    assert str(failed[0]) == "no answer in 0.5 s"


def test_a_process_that_was_stopped_believes_no_old_answer() -> None:
    """What was true so long ago, such as a lease, may have ended since."""
    busy = Busy()
    case = Case(busy)
    case.send("A")
    busy.clock.advance(LATE_S)
    busy.turn()
    assert case.ends == ["no answer in 0.5 s"]


def test_the_deadline_is_that_of_the_oldest_command() -> None:
    """While answers come, a busy connection goes on, however long ago its first command was."""
    case = Case()
    case.send("first")
    for _ in range(20):
        case.server.clock.advance(CALL_TIMEOUT_S * 0.6)
        case.send("next")
        case.wire.answer(b"+OK\r\n")
    assert not case.wire.is_aborted
    case.wire.answer(b"+OK\r\n")
    case.server.clock.advance(CALL_TIMEOUT_S)
    case.server.clock.advance(CALL_TIMEOUT_S)
    assert not case.wire.is_aborted
    assert not case.server.clock.getDelayedCalls()


@pytest.mark.parametrize("error", [None, ConnectionLost()])
def test_a_connection_that_ends_fails_all_that_wait(error: Exception | None) -> None:
    """And what is sent afterwards fails at once."""
    case = Case()
    outcomes = [case.send("A"), case.send("B")]
    case.wire.close(error)
    outcomes.append(case.send("C"))
    assert all(isinstance(outcome[0], DownError) for outcome in outcomes)
    assert str(outcomes[2][0]).startswith("it closed the connection")
    assert len(case.ends) == 1
    case.connection.abort("again")
    assert len(case.ends) == 1


@pytest.mark.parametrize(
    ("tls_problem", "has_answered", "error", "reason"),
    [
        (None, False, None, CLOSED_AT_ONCE),
        (None, True, None, "it closed the connection"),
        ("", False, ConnectionLost(), "it closed the connection"),
        (NO_TLS, False, ConnectionLost(), NO_TLS),
        (NO_TLS, False, SSL.Error([("SSL routines", "", "wrong version number")]), NO_TLS),
        (NO_TLS, False, SSL.Error([("SSL routines", "", "tlsv1 alert internal error")]), "TLS failed (tlsv1 alert"),
        (
            "its certificate has expired",
            False,
            SSL.Error([("SSL", "", "certificate verify failed")]),
            "its certificate",
        ),
        ("", False, SSL.SysCallError(-1, "Unexpected EOF"), "TLS failed (unexpected eof)"),
        ("", False, SSL.Error(), "TLS failed"),
    ],
)
def test_why_a_connection_ended(
    tls_problem: str | None, has_answered: bool, error: Exception | None, reason: str
) -> None:
    """The reason is one line: what is wrong with TLS, and whether the server wants it."""
    case = Case()
    case.connection.tls_problem = tls_problem
    if has_answered:
        case.send("A")
        case.wire.answer(b"+OK\r\n")
    case.wire.close(error)
    assert case.ends[0].startswith(reason)


def test_a_server_without_tls_that_waits_for_more() -> None:
    """Redis does, as it takes a greeting of TLS for the beginning of a command."""
    case = Case()
    case.connection.tls_problem = NO_TLS
    case.send("A")
    case.server.clock.advance(CALL_TIMEOUT_S)
    assert case.ends == [NO_TLS]


def test_answers_that_cannot_be_read_end_the_connection() -> None:
    """A map whose keys are lists, which RESP3 has, raises no exception."""
    case = Case()
    outcome = case.send("A")
    case.wire.answer(b"%1\r\n*1\r\n:1\r\n:2\r\n")
    assert [str(error) for error in outcome] == case.ends
    assert case.ends == ["it does not speak the protocol of Redis: an answer of RESP3, which was not asked for"]
    assert case.wire.is_aborted


def test_false_is_an_answer() -> None:
    """That of RESP3 is not taken for one that has not arrived yet, with which all later ones would be misplaced."""
    case = Case()
    outcomes = [case.send("A"), case.send("B")]
    case.wire.answer(b"#f\r\n:2\r\n")
    assert outcomes == [[False], [2]]


@pytest.mark.parametrize("data", [b"+nobody asked\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_other_protocols_end_the_connection(data: bytes) -> None:
    """So does an answer to nothing."""
    case = Case()
    if data.startswith(b"H"):
        outcome = case.send("A")
        case.wire.answer(data)
        assert str(outcome[0]).startswith("it does not speak the protocol of Redis: ")
    else:
        case.wire.answer(data)
    assert case.wire.is_aborted


def test_ten_thousand_commands_may_wait() -> None:
    """They are answered in order; far more than that are refused."""
    case = Case()
    outcomes = [case.send("GET", str(number)) for number in range(10_000)]
    case.wire.answer(b"".join(b":%d\r\n" % number for number in range(10_000)))
    assert [outcome[0] for outcome in outcomes] == list(range(10_000))
    waiting: list[Deferred[Any]] = [case.connection.send(("A",)) for _ in range(MAX_WAITING)]
    refused = case.send("B")
    assert isinstance(refused[0], DownError)
    case.connection.abort("end")
    for each in waiting:
        each.addErrback(lambda failure: None)


def test_a_command_sent_when_an_answer_comes_waits_for_its_own() -> None:
    """Callers may send from within an answer."""
    case = Case()
    got: list[object] = []

    def send_another(answer: object) -> None:
        got.append(answer)
        case.connection.send(("B",)).addCallback(got.append)

    case.connection.send(("A",)).addCallback(send_another)
    case.wire.answer(b"+1\r\n")
    case.wire.answer(b"+2\r\n")
    assert got == [b"1", b"2"]
