"""The command ``pyryrelay upgrade``."""

from __future__ import annotations

from tests.support.command import Ran, Runner
from tests.support.fake_relay import FakeRelay


def test_an_upgrade_names_the_new_process(run: Runner, relay: FakeRelay) -> None:
    """``upgrade`` says which process has taken over, and how long the old one takes."""
    relay.body = {"pid": 812, "version": "26.12.0", "drain_over_s": 30.0}
    line = "process 812, version 26.12.0, has taken over; the old process moves its peers within 30 s, and ends\n"
    assert run("upgrade") == Ran(0, line, "")
    assert relay.requests == [("POST", "/upgrade")]


def test_a_failure_is_an_error(run: Runner, relay: FakeRelay) -> None:
    """If the new process cannot start, the command prints the reason and exits with 1."""
    relay.status, relay.body = 409, {"error": "the new process could not take over: it was not ready within 60 s"}
    failed = "pyryrelay: the new process could not take over: it was not ready within 60 s\n"
    assert run("upgrade") == Ran(1, "", failed)


def test_an_answer_of_another_version(run: Runner, relay: FakeRelay) -> None:
    """An answer without a process is an error with the fix."""
    relay.body = ["x"]
    assert run("upgrade").code == 1
