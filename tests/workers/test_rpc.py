"""Questions and messages between two processes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.rpc import connect, rpc_pair
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock

from pyryrelay.workers.rpc import Rpc, RpcError


def outcome(deferred: Deferred[Any]) -> Any:
    """Return the result of a Deferred, or its exception; None if it has not fired."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    return getattr(found[0], "value", found[0]) if found else None


def test_an_answer() -> None:
    """A handler gets the body, and what it returns is the answer."""
    one, other = rpc_pair()
    other.on("double", lambda body: {"twice": body["number"] * 2})
    assert outcome(one.ask("double", number=21)) == {"twice": 42}


def test_both_ends_may_ask() -> None:
    """Numbers of the two directions are independent."""
    one, other = rpc_pair()
    one.on("name", lambda body: "one")
    other.on("name", lambda body: "other")
    assert [outcome(one.ask("name")), outcome(other.ask("name"))] == ["other", "one"]


def test_answers_come_in_any_order() -> None:
    """A handler may return a Deferred; each answer goes to its question."""
    one, other = rpc_pair()
    waiting = [Deferred[str](), Deferred[str]()]
    other.on("wait", lambda body: waiting[body["which"]])
    first, second = one.ask("wait", which=0), one.ask("wait", which=1)
    waiting[1].callback("b")
    waiting[0].callback("a")
    assert [outcome(first), outcome(second)] == ["a", "b"]


def test_messages_have_no_answer() -> None:
    """A message reaches its handler, and one of an unknown name is ignored."""
    one, other = rpc_pair()
    told: list[Mapping[str, Any]] = []
    other.on("note", told.append)
    one.tell("unknown")
    one.tell("note", text="x")
    assert told == [{"text": "x"}]


def test_names_of_the_body_may_be_those_of_arguments() -> None:
    """A body may have the keys ``name`` and ``self``."""
    one, other = rpc_pair()
    other.on("echo", lambda body: dict(body))
    assert outcome(one.ask("echo", name="n", self="s")) == {"name": "n", "self": "s"}


def fails(body: Mapping[str, Any]) -> None:
    raise ValueError("no\nsuch thing")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unknown", "unknown: the other process does not know this"),
        ("fails", "fails: no\\nsuch thing"),
        ("object", "object: Object of type object is not JSON serializable"),
    ],
)
def test_failures(name: str, text: str) -> None:
    """An unknown name, a handler that fails, and an answer that is no JSON fail the question with one line."""
    one, other = rpc_pair()
    other.on("fails", fails)
    other.on("object", lambda body: object())
    error = outcome(one.ask(name))
    assert isinstance(error, RpcError)
    assert str(error) == text


def test_a_message_that_fails_is_logged_alone() -> None:
    """The end that handles it stays connected."""
    one, other = rpc_pair()
    other.on("fails", fails)
    other.on("works", lambda body: True)
    one.tell("fails")
    assert outcome(one.ask("works")) is True


def test_the_end_fails_all_questions() -> None:
    """What was asked fails, so does what is asked later, and messages do nothing."""
    one, other = rpc_pair()
    lost: list[str] = []
    one.on_lost.append(lambda: lost.append("lost"))
    other.on("wait", lambda body: Deferred())
    asked = one.ask("wait")
    other.close()
    one.tell("wait")
    for question in (asked, one.ask("wait")):
        assert str(outcome(question)) == "wait: the other process has ended"
    assert lost == ["lost"]


def test_what_is_said_early_waits() -> None:
    """Before both ends are connected, questions and messages wait, in order."""
    one, other = Rpc(), Rpc()
    told: list[str] = []
    other.on("note", lambda body: told.append(body["text"]))
    one.tell("note", text="a")
    asked = one.ask("note", text="b")
    assert told == []
    connect(one, other)
    assert told == ["a", "b"]
    assert asked.called


def test_closing_before_the_connection() -> None:
    """An end that never was connected is lost when it is closed."""
    rpc = Rpc()
    asked = rpc.ask("anything")
    rpc.close()
    assert isinstance(outcome(asked), RpcError)


def test_a_question_that_is_cancelled_is_forgotten() -> None:
    """Its answer is ignored when it comes."""
    one, other = rpc_pair()
    answer = Deferred[int]()
    other.on("wait", lambda body: answer)
    asked = one.ask("wait")
    asked.cancel()
    answer.callback(1)
    assert isinstance(outcome(asked), CancelledError)


def test_messages_that_are_not_understood_are_ignored() -> None:
    """Another version may send other types and more keys."""
    rpc = Rpc()
    for message in ({"type": "new"}, {}, {"type": "ask"}, {"type": "answer", "number": 9, "value": 1}):
        rpc.received(message)
    assert not rpc.is_lost


def test_over_a_socket() -> None:
    """`connect` gives the reactor a copy of the descriptor, and closes the other one."""
    ours, theirs = socket.socketpair()
    adopted: list[Any] = []

    class Reactor(MemoryReactorClock):
        def adoptStreamConnection(self, *arguments: Any) -> None:  # noqa: N802
            adopted.append(arguments[2].buildProtocol(None))

    with theirs:
        Rpc().connect(Reactor(), ours)  # type: ignore[no-untyped-call]
    assert ours.fileno() == -1
    assert len(adopted) == 1
