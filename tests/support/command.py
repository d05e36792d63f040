"""Runs the command ``pyryrelay`` in this process, against a relay that a test has set up."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from tests.support.fake_relay import FakeRelay

from pyryrelay.cli import command


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Ran:
    """Exit code and output of a command."""

    code: int | str | None
    out: str
    err: str


class Runner:
    """Runs commands whose output goes to a pipe, or to a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, relay: FakeRelay) -> None:
        self._monkeypatch = monkeypatch
        self._relay = relay

    def __call__(self, *argv: str, terminal: bool = False, env: dict[str, str] | None = None) -> Ran:
        out = Terminal() if terminal else io.StringIO()
        err = io.StringIO()
        env = {command.URL_VARIABLE: self._relay.url} if env is None else env
        with self._monkeypatch.context() as patched:
            patched.setattr("sys.stdout", out)
            patched.setattr("sys.stderr", err)
            try:
                code: int | str | None = command.main(argv, env)
            except SystemExit as ended:
                code = ended.code
        assert err.getvalue().count("\n") <= 1, "errors are one line"
        return Ran(code, out.getvalue(), err.getvalue())
