"""The command ``pyryrelay top``: lines in this process, the screen in one of its own on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.command import Runner
from tests.support.fake_relay import FakeRelay
from tests.support.status import status

SOURCE = Path(__file__).parents[3] / "src"
SOON_S = 60.0


def test_a_line_for_each_moment(run: Runner, relay: FakeRelay) -> None:
    """In a pipe there are bare rows; the first has no rates."""
    relay.body = status()
    ran = run("top", "--count", "2", "--interval", "0.01")
    assert (ran.code, ran.err) == (0, "")
    first, second = ran.out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\t92(\t-){7}\t85.8 MiB\t5", first)
    # The answer is the same, so no time has passed for the relay.
    assert second.split("\t")[1:] == first.split("\t")[1:]
    assert relay.requests == [("GET", "/status")] * 2


def test_titles_for_people(run: Runner, relay: FakeRelay) -> None:
    """With --plain, and on a terminal that cannot redraw, columns are aligned under titles."""
    relay.body = status()
    for words, term in ((("--plain",), "xterm"), ((), "dumb")):
        ran = run("top", "--count", "1", *words, terminal=True, env={"PYRYRELAY_ADMIN_URL": relay.url, "TERM": term})
        titles, line = ran.out.splitlines()
        assert titles.split()[:3] == ["TIME", "OPEN", "ADMIT/s"]
        assert len(line) == len(titles)


def test_json_lines(run: Runner, relay: FakeRelay) -> None:
    """With --json each moment is an object on one line, on a terminal as well."""
    relay.body = status()
    out = run("top", "--json", "--count", "2", "--interval", "0.01", terminal=True).out
    assert [json.loads(line) for line in out.splitlines()] == [relay.body] * 2


def test_a_relay_that_is_not_there_at_first(run: Runner) -> None:
    """If the relay cannot be reached at first, that is an error as always."""
    ran = run("top", env={"PYRYRELAY_ADMIN_URL": "unix:/nonexistent"})
    assert (ran.code, ran.out) == (1, "")
    assert "the socket does not exist: start the relay" in ran.err


@pytest.mark.parametrize(("option", "value"), [("--count", "0"), ("--count", "x"), ("--interval", "0")])
def test_wrong_numbers(run: Runner, option: str, value: str) -> None:
    """A number that makes no sense is a wrong command line."""
    ran = run("top", option, value)
    assert (ran.code, f"'{value}' is not a number of" in ran.err) == (2, True)


def test_without_rich(run: Runner, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rich, one line says how to install it."""
    relay.body = status()
    monkeypatch.delitem(sys.modules, "pyryrelay.cli.live.screen", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    ran = run("top", terminal=True, env={"PYRYRELAY_ADMIN_URL": relay.url, "TERM": "xterm"})
    assert (ran.code, ran.out) == (1, "")
    assert "pip install 'pyryrelay[top]', or use --plain" in ran.err


class OnATerminal:
    """A command on a real terminal, and what it has drawn."""

    def __init__(self, process: subprocess.Popen[bytes], user: int) -> None:
        self.process, self._user = process, user
        self.drawn = ""

    def shows(self, text: str) -> None:
        """Wait until a text is drawn."""
        deadline = time.monotonic() + SOON_S
        while text not in self.drawn:
            assert time.monotonic() < deadline, self.drawn[-2_000:]
            if select.select([self._user], [], [], 0.05)[0]:
                self._read()

    def press(self, key: str) -> None:
        """Press a key."""
        os.write(self._user, key.encode())

    def ended(self) -> int:
        """Wait for the end, and return the exit code. What is drawn meanwhile is read, or it could not end."""
        deadline = time.monotonic() + SOON_S
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline, self.drawn[-2_000:]
            if select.select([self._user], [], [], 0.05)[0]:
                self._read()
        return code

    def _read(self) -> None:
        with suppress(OSError):  # it has ended, and nothing is left
            self.drawn += os.read(self._user, 65_536).decode("utf-8", "replace")


@contextmanager
def on_a_terminal(*words: str, term: str = "xterm-256color") -> Iterator[OnATerminal]:
    """Run a command on a terminal of its own."""
    user, terminal = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": term, "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-m", "pyryrelay.cli.command", *words]
    with subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=env,
        # A suite that runs in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        os.close(terminal)
        try:
            yield OnATerminal(process, user)
        finally:
            process.kill()
            os.close(user)


def test_the_screen_and_its_end(relay: FakeRelay) -> None:
    """The screen is drawn on the alternate buffer, and q gives the terminal back."""
    relay.body = status()
    with on_a_terminal("--admin", relay.url, "top", "--interval", "0.05") as top:
        top.shows("process 4242")
        relay.body = status(uptime_s=90_001.0, refused={"rate_limit": 60, "jailed": 7_000})
        top.shows("rate_limit")
        top.press("q")
        assert top.ended() == 0
        top.shows("\x1b[?1049l")
    assert "\x1b[?1049h" in top.drawn
    assert "\x1b[2J" not in top.drawn


def test_ctrl_c_ends_it(relay: FakeRelay) -> None:
    """Ctrl-C ends the screen silently, and gives the terminal back."""
    relay.body = status()
    with on_a_terminal("--admin", relay.url, "top") as top:
        top.shows("process 4242")
        top.process.send_signal(signal.SIGINT)
        assert top.ended() == 0
        top.shows("\x1b[?1049l")
    assert "Traceback" not in top.drawn
