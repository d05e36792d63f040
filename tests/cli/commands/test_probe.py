"""The command ``pyryrelay probe``, against small servers; the relay itself is in the end-to-end tests."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from tests.support.command import Runner
from tests.support.odd_servers import answering, read_head, serving

DENIED = answering(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\n")


def test_a_problem_is_one_line_with_the_fix(run: Runner) -> None:
    """The steps go to standard output, the problem with its fix to standard error; the exit code is 1."""
    with serving(DENIED) as port:
        ran = run("probe", f"ws://127.0.0.1:{port}")
    assert ran.code == 1
    assert [line.split("\t")[:2] for line in ran.out.splitlines()] == [
        ["ok", "name"],
        ["ok", "binary: TCP"],
        ["FAILED", "binary: upgrade"],
    ]
    assert ran.err.startswith(
        f"pyryrelay: ws://127.0.0.1:{port}: binary: upgrade: it was answered 429 Too Many Requests"
    )
    assert "; wait 7 s (Retry-After)" in ran.err


def test_steps_are_aligned_for_people(run: Runner) -> None:
    """On a terminal the steps are aligned."""
    with serving(DENIED) as port:
        lines = run("probe", "--nostr", f"ws://127.0.0.1:{port}", terminal=True).out.splitlines()
    assert lines[0].startswith("ok      name ")
    assert {line.index(" ms  ") for line in lines} == {len("ok      name".ljust(34)) + 8}
    assert any(line.startswith("warning information document ") for line in lines)


def test_everything_as_json(run: Runner) -> None:
    """With --json there is one object, also for a problem, and nothing else."""
    with serving(DENIED) as port:
        ran = run("probe", "--json", f"ws://127.0.0.1:{port}/x")
    body = json.loads(ran.out)
    assert (ran.code, ran.err) == (1, "")
    assert (body["url"], body["ok"]) == (f"ws://127.0.0.1:{port}/x", False)
    assert [step["state"] for step in body["steps"]] == ["ok", "ok", "problem"]
    assert "Retry-After" in body["steps"][-1]["fix"]


def test_a_relay_that_does_not_answer(run: Runner) -> None:
    """Each step takes no longer than --timeout."""

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.recv(1)

    with serving(handle) as port:
        ran = run("probe", "--timeout", "0.1", f"ws://127.0.0.1:{port}")
    assert (ran.code, "did not arrive within 0.1 s; check that" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "required: URL"),
        (("ftp://x",), "argument URL: 'ftp://x' is not the URL of a relay: write wss://relay.example"),
        (("ws://x", "--timeout", "0"), "argument --timeout: '0' is not a number of seconds"),
        (("--pyry", "--nostr", "ws://x"), "not allowed with argument --pyry"),
    ],
)
def test_wrong_command_lines(run: Runner, words: tuple[str, ...], problem: str) -> None:
    """A wrong command line is exit code 2, and nothing is sent."""
    ran = run("probe", *words)
    assert (ran.code, ran.out, problem in ran.err) == (2, "", True)


def test_a_file_of_authorities_that_cannot_be_used(run: Runner, tmp_path: Path) -> None:
    """A file for --ca that is missing, or has no certificate, is one line before anything is sent."""
    (tmp_path / "empty").write_text("")
    for name in ("missing", "empty"):
        ran = run("probe", "--ca", str(tmp_path / name), "wss://127.0.0.1:1")
        assert (ran.code, ran.out) == (1, "")
        assert "cannot be used (" in ran.err
        assert "name a PEM file of certificates" in ran.err
