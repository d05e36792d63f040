"""The manual pages: made from the code, and valid."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from pyryrelay.cli.command import COMMANDS
from pyryrelay.mounts import Settings

MANPAGES = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "manpages.py"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both pages."""
    written: list[Path] = MANPAGES["write"](tmp_path_factory.mktemp("man"))
    return written


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed (Debian: mandoc)")
def test_mandoc_finds_nothing(pages: list[Path]) -> None:
    """`mandoc -T lint` has no warning about a page."""
    command = ["mandoc", "-T", "lint", "-W", "warning", *map(str, pages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_option_and_command_is_described(pages: list[Path]) -> None:
    """The page of the relay has each option, the page of the command each command."""
    command, relay = (path.read_text(encoding="utf-8") for path in pages)
    for option in Settings.options():
        assert f"\n.TP\n\\fB\\-\\-{option.name.replace('-', chr(92) + '-')}" in relay, option.name
    for name in COMMANDS:
        assert f"\n.SS pyryrelay {name}" in command, name


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        ("a --b-c", "a \\-\\-b\\-c"),
        ("see `--x y`", "see \\fB\\-\\-x y\\fR"),
        (".hidden\n'too", "\\&.hidden\n\\&'too"),
        ("C:\\x", "C:\\ex"),
    ],
)
def test_texts_are_escaped(text: str, roff: str) -> None:
    """Nothing in a text is a command of roff by accident."""
    assert MANPAGES["escaped"](text) == roff
