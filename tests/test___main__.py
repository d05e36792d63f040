"""``python -m pyryrelay`` is the command ``pyryrelay``."""

from __future__ import annotations

import runpy
import sys

import pytest


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The package can be run, and its help names the command."""
    monkeypatch.setattr(sys, "argv", ["__main__.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pyryrelay", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: pyryrelay ")
