"""Commands that protocols bring: found by their entry points, loaded when they are used, and told about the relay."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from tests.support.fake_relay import FakeRelay

from pyryrelay.cli import admin_client, command
from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import ENTRY_POINTS, AddCommand, CommandError, NotRunningError, Relay, Run


def add_echo(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command of the echo room, as its authors would."""
    echo = commands.add_parser("echo", help="send something to the room", parents=[common])
    echo.add_argument("text")
    echo.set_defaults(run=run_echo)


def run_echo(relay: Relay, arguments: argparse.Namespace, output: Output) -> int | None:
    """Have the room echo a text; an empty one is no success."""
    try:
        answer = relay.act("echo", "echo", arguments.text.encode())
    except NotRunningError:
        output.lines(["nobody is there"])
        return 3
    output.lines([str(answer["text"])])
    return None if answer["text"] else 1


ADD: AddCommand = add_echo
RUN: Run = run_echo


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entry points that are loaded, of an installation with the room and with a command that is broken."""
    names: list[str] = []

    class Entry(EntryPoint):
        def load(self) -> Any:
            names.append(self.name)
            return super().load()

    def entry_points(*, group: str) -> list[Entry]:
        assert group == ENTRY_POINTS
        return [
            Entry("broken", "tests.cli.no_such_module:add", group),
            Entry("echo", "tests.cli.test_protocol_commands:add_echo", group),
        ]

    monkeypatch.setitem(sys.modules, "tests.cli.test_protocol_commands", sys.modules[__name__])
    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    return names


@pytest.fixture
def run(relay: FakeRelay, loaded: list[str]) -> Callable[..., int]:
    """Runs a command against the relay."""
    return lambda *words, url=relay.url: command.main(words, {command.URL_VARIABLE: url})


def test_a_command_of_a_protocol(run: Callable[..., int], relay: FakeRelay, capsys: pytest.CaptureFixture[str]) -> None:
    """It has the shared options, talks to the relay that the user chose, and returns an exit code."""
    relay.body = {"text": "one\x1b"}
    assert run("echo", "[1]") == 0
    assert capsys.readouterr().out == "one\\x1b\n"
    assert (relay.requests, relay.bodies) == ([("POST", "/echo/echo")], [[1]])
    relay.body = {"text": ""}
    assert run("--admin", relay.url, "echo", "[]", "--json") == 1
    assert run("echo", "[]", url="unix:/nonexistent/socket") == 3


def test_its_errors_are_one_line(run: Callable[..., int], relay: FakeRelay, capsys: pytest.CaptureFixture[str]) -> None:
    """What the relay refuses is told like any error."""
    relay.status, relay.body = 400, {"error": "there is nothing to echo: send some JSON"}
    assert run("echo", "[]") == 1
    assert capsys.readouterr().err == "pyryrelay: there is nothing to echo: send some JSON\n"


@pytest.mark.parametrize("words", [("echo", "--help"), ("--admin", "unix:x", "echo", "--help")])
def test_only_what_is_used_is_loaded(run: Callable[..., int], loaded: list[str], words: tuple[str, ...]) -> None:
    """A command is loaded for its own use and its own help."""
    with pytest.raises(SystemExit):
        run(*words)
    assert loaded == ["echo"]


def test_the_help_lists_all(run: Callable[..., int], loaded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The help of the whole names all commands, and loads none."""
    with pytest.raises(SystemExit):
        run("--help")
    out = capsys.readouterr().out
    assert "    echo " in out
    assert "    broken " in out
    assert loaded == []


def test_other_commands_do_not_look_for_any(
    run: Callable[..., int], relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of every relay do not spend time on looking for others."""
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    relay.body = []
    assert run("jail", "list") == 0


def test_a_broken_one_is_one_line(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """A command that cannot be loaded is an error of one line, as JSON where JSON is asked for."""
    problem = "the command broken cannot be loaded (ModuleNotFoundError: No module named 'tests.cli.no_such_module')"
    assert run("broken", "anything") == 1
    assert capsys.readouterr().err == f"pyryrelay: {problem}: reinstall pyryrelay\n"
    assert run("broken", "--json") == 1
    assert capsys.readouterr().out == f'{{"error": "{problem}: reinstall pyryrelay"}}\n'


def test_an_action_has_a_timeout_of_its_own(relay: FakeRelay) -> None:
    """An action may take longer than other requests; without a relay the error has a type of its own."""
    relay.body = {"done": True}
    assert AdminClient(relay.url).act("echo", "ask", b"{}", timeout_s=600.0) == {"done": True}
    with pytest.raises(NotRunningError, match="the socket does not exist"):
        AdminClient("unix:/nonexistent/socket").act("echo", "ask")
    assert issubclass(NotRunningError, CommandError)
    assert admin_client.ACTION_TIMEOUT_S == 30.0
