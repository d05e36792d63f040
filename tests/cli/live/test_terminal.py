"""What a terminal can do, and the keys that are pressed on a real one."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import termios

import pytest
from tests.support.command import Terminal

from pyryrelay.cli.live.terminal import can_redraw, keys


@pytest.mark.parametrize(("term", "can"), [("xterm", True), ("dumb", False), ("", False), ("unknown", False)])
def test_dumb_terminals_are_not_drawn_on(term: str, can: bool) -> None:
    """A terminal says what it is; a pipe is none."""
    assert can_redraw(Terminal(), {"TERM": term}) is can
    assert not can_redraw(Terminal(), {})
    assert not can_redraw(io.StringIO(), {"TERM": "xterm"})


def test_keys_come_one_by_one_and_the_terminal_is_put_back() -> None:
    """Keys are read without a new line; afterwards the terminal is as before, even after an error."""
    user, terminal = pty.openpty()
    with os.fdopen(terminal) as stream:
        before = termios.tcgetattr(terminal)
        with contextlib.suppress(ValueError), keys(stream) as pressed:
            assert termios.tcgetattr(terminal) != before
            assert pressed(0.0) == ""
            os.write(user, b"xq")
            assert pressed(60.0) == "xq"
            raise ValueError
        assert termios.tcgetattr(terminal) == before
    os.close(user)


def test_without_a_terminal_there_are_no_keys() -> None:
    """If standard input is no terminal, there is only the wait."""
    with keys(io.StringIO("q")) as pressed:
        assert pressed(0.0) == ""
