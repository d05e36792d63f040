"""The command ``pyryrelay`` as a whole, against an admin API on loopback that answers what a test has set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.command import Ran, Runner
from tests.support.fake_relay import FakeRelay

from pyryrelay import __version__
from pyryrelay.cli import admin_client, command

SOURCE = Path(__file__).parents[2] / "src"
ENTRIES = [
    {"network": "192.0.2.7/32", "seconds_left": 59.7, "times": 0},
    {"network": "2001:db8::/64", "seconds_left": 9_030.0, "times": 3},
]


# JSON


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (("jail", "list"), ENTRIES),
        (("jail", "add", "192.0.2.7"), ENTRIES[0]),
        (("jail", "release", "192.0.2.7"), {"network": "192.0.2.7/32"}),
        (("reload",), {"changed": ["deny"], "needs_restart": [], "error": None}),
        (("whoami",), {"steps": ["a"]}),
    ],
)
def test_json_is_the_relays_answer(run: Runner, relay: FakeRelay, command: tuple[str, ...], body: object) -> None:
    """``--json``, before or after the command, prints the answer: one line in a pipe, indented on a terminal."""
    relay.body = body
    assert run("--json", *command).out == json.dumps(body) + "\n"
    assert run(*command, "--json", terminal=True).out == json.dumps(body, indent=2) + "\n"


def test_errors_are_json_as_well(run: Runner, relay: FakeRelay) -> None:
    """With ``--json`` errors are printed as JSON on standard output, with the same exit code."""
    relay.status, relay.body = 404, {"error": "'192.0.2.7' is not jailed"}
    ran = run("--json", "jail", "release", "192.0.2.7")
    assert (ran.code, json.loads(ran.out), ran.err) == (1, relay.body, "")


# Where the relay is


def test_the_option_overrides_the_environment(run: Runner, relay: FakeRelay) -> None:
    """``--admin``, before or after the command, takes precedence over the variable."""
    relay.body = []
    bad = {command.URL_VARIABLE: "http://127.0.0.1:1"}
    assert run("--admin", relay.url, "jail", "list", env=bad).code == 0
    assert run("jail", "list", "--admin", f"{relay.url}/", env=bad).code == 0
    assert relay.requests == [("GET", "/jail?limit=10000")] * 2


def test_a_unix_socket(run: Runner, tmp_path: Path) -> None:
    """The option and the variable take ``unix:PATH``; a relay that cannot be reached is one line and exit code 1."""
    url = f"unix:{tmp_path}/admin.sock"
    for ran in (run("--admin", url, "reload"), run("reload", env={command.URL_VARIABLE: url})):
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"pyryrelay: {url}: the socket does not exist: start the relay")


@pytest.mark.parametrize("command", [("jail", "list"), ("jail", "add", "192.0.2.7"), ("reload",), ("whoami",)])
@pytest.mark.parametrize("body", [{}, [1], {"steps": 1, "changed": None}])
def test_an_answer_of_another_version(run: Runner, relay: FakeRelay, command: tuple[str, ...], body: object) -> None:
    """JSON of another shape is an error of one line."""
    relay.body = body
    ran = run(*command)
    if ran.code == 0:
        assert (command, body, ran.out) == (("jail", "list"), {}, "")
    else:
        assert ran.err.endswith("use the same version of pyryrelay as the relay\n")


# The command line


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ((), "required: COMMAND"),
        (("jail",), "required: COMMAND"),
        (("jail", "add"), "required: ADDRESS"),
        (("jail", "add", "192.0.2.7", "--for", "soon"), "'soon' is not a duration: write 90s, 10m"),
        (("jail", "add", "192.0.2.7", "--for", ""), "'' is not a duration"),
        (("jail", "add", "192.0.2.7", "--for", "400d"), "'400d' is too long: write up to 366d, or put the address on"),
        (("jail", "add", "192.0.2.7", "--for", "0m"), "'0m' is zero: write 1s or more"),
        (("--admin", "unix:", "reload"), "'unix:' has no path: write unix:/run"),
        (("jail", "add", "192.0.2.7", "--for", "-5"), "--for"),
        (("jail", "add", "192.0.2.7", "--for", "\u0663m"), "is not a duration"),
        (("whoami", "--header", "203.0.113.9"), "'203.0.113.9' is not a header: write"),
        (("whoami", "--header", "A: b\r\nC: d"), "is not a header"),
        (
            ("--admin", "ftp://127.0.0.1", "reload"),
            "'ftp://127.0.0.1' is not the URL of an admin listener: write http://",
        ),
        (("--admin", "127.0.0.1:9090", "reload"), "is not the URL"),
        (("--admin", "http://", "reload"), "is not the URL"),
        (("--admin", "http://me:secret@127.0.0.1", "reload"), "is not the URL"),
        (("--admin", "http://127.0.0.1:99999", "reload"), "is not the URL"),
        (("--admin", "http://127.0.0.1/x", "reload"), "is not the URL"),
        (("--admin", "http://127.0.0.1 /", "reload"), "is not the URL"),
        (("restart",), "invalid choice: 'restart'"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    run: Runner, relay: FakeRelay, argv: tuple[str, ...], problem: str
) -> None:
    """A wrong command line prints one line with the fix, exits with 2, and sends no request."""
    ran = run(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err
    assert "--help" in ran.err
    assert relay.requests == []


def test_a_wrong_variable_is_named(run: Runner) -> None:
    """An invalid URL in the environment is refused with the name of the variable."""
    ran = run("reload", env={command.URL_VARIABLE: "relay"})
    assert (ran.code, ran.err.startswith(f"pyryrelay: {command.URL_VARIABLE}: 'relay' is not the URL")) == (2, True)


@pytest.mark.parametrize("command", [(), ("jail",), ("jail", "add"), ("whoami",)])
def test_help_has_examples(run: Runner, command: tuple[str, ...]) -> None:
    """``--help`` exits with 0, and shows examples for all commands that have some."""
    ran = run(*command, "--help")
    assert ran.code == 0
    assert ("examples:\n  pyryrelay " in ran.out) or command == ("jail", "add")
    assert max(map(len, ran.out.splitlines())) <= 120


def test_version(run: Runner) -> None:
    """``--version`` prints the version of the package."""
    assert run("--version") == Ran(0, f"pyryrelay {__version__}\n", "")


def test_ctrl_c_is_no_traceback(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command silently with exit code 1."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(admin_client.AdminClient, "request", interrupt)
    assert run("reload") == Ran(1, "", "")


def test_a_closed_pipe_is_no_error(relay: FakeRelay) -> None:
    """``pyryrelay jail list | head -0`` exits silently with 0."""
    relay.body = ENTRIES
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "pyryrelay.cli.command", "--admin", relay.url, "jail", "list"]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, env=env, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
