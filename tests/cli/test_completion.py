"""The completion scripts, by the shells that they are for."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pyryrelay.cli.command import complete_parser
from pyryrelay.cli.completion import SCRIPTS, Flag, levels
from pyryrelay.mounts import Settings
from pyryrelay.nostr.tools.command import add as add_nostr
from pyryrelay.start.run import add as add_run

BASH = """
source "$0"
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
_pyryrelay
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { }
_describe() { shift 2; print -l -- "${(@)found%%:*}" }
compadd() { shift; print -l -- "$@" }
_files() { print -l -- ${words[CURRENT]}* }
source $0
words=("$@") CURRENT=$#
_pyryrelay
"""
"""Stands in for zsh's own functions, which need a terminal."""
FISH = "source $argv[1]; complete -C $argv[2]"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A script for each shell, with the commands that are entry points of this tree."""
    found = list(levels(complete_parser([add_nostr, add_run])))
    paths = {shell: tmp_path_factory.mktemp("completion") / shell for shell in SCRIPTS}
    for shell, path in paths.items():
        path.write_text(SCRIPTS[shell](found), encoding="utf-8")
    return paths


def _completed(shell: str, script: Path, words: Sequence[str]) -> set[str]:
    """Return what the shell offers for the last word; skips if the shell is missing."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed" + {"zsh": " (Debian: zsh)", "fish": " (Debian: fish)"}.get(shell, ""))
    command = {
        "bash": ["bash", "--norc", "-c", BASH, str(script), *words],
        "zsh": ["zsh", "-f", "-c", ZSH, str(script), *words],
        "fish": ["fish", "--no-config", "-c", FISH, str(script), shlex.join(words[:-1]) + f" {words[-1]}"],
    }[shell]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    offered = {line.partition("\t")[0] for line in done.stdout.splitlines()}
    return {one for one in offered if one.startswith(words[-1]) and one}


@pytest.mark.parametrize("shell", list(SCRIPTS))
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("j", {"jail"}),
        ("jail ", {"list", "add", "release"}),
        ("--admin http://jail:9090 jail r", {"release"}),
        ("--json config c", {"convert"}),
        ("jail add 192.0.2.7 --f", {"--for"}),
        ("config convert --to t", {"toml"}),
        ("completion --adm", {"--admin", "--admin-token-file"}),
        ("run --max-binaries", {"--max-binaries-per-address"}),
        ("run --no-ny", set()),
        ("run --reactor a", {"asyncio"}),
        ("run --no-py", {"--no-pyry"}),
    ],
)
def test_what_is_offered(scripts: Mapping[str, Path], shell: str, words: str, offered: set[str]) -> None:
    """Commands, options and choices are offered where they fit; values of options are no commands."""
    typed = ["pyryrelay", *words.split(" ")]
    found = _completed(shell, scripts[shell], typed)
    assert offered <= found if typed[-1] == "" else found == offered


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_names_of_files_are_offered(scripts: Mapping[str, Path], shell: str, tmp_path: Path) -> None:
    """Behind an option that takes a file, files are offered."""
    (tmp_path / "relay.toml").touch()
    found = _completed(shell, scripts[shell], ["pyryrelay", "run", "--config", f"{tmp_path}/rel"])
    assert found == {f"{tmp_path}/relay.toml"}


def test_every_option_of_the_relay_is_known() -> None:
    """``run`` completes each option of the relay, and the way to turn a switch off."""
    [run] = [level for level in levels(complete_parser([add_run])) if level.words == ("run",)]
    names = {flag.name for flag in run.flags}
    assert {f"--{option.name}" for option in Settings.options()} < names
    assert {f"--no-{option.name}" for option in Settings.options() if option.type.flag} < names
    assert {"--config", "--check", "--uid", "--reactor"} < names


def test_what_an_option_takes() -> None:
    """An option tells whether a value follows, and whether it is a file or one of a few words."""
    flags = {flag.name: flag for level in levels(complete_parser([])) for flag in level.flags}
    assert flags["--json"] == Flag("--json", "print results and errors as JSON")
    assert flags["--admin-token-file"].is_file
    assert flags["--to"].choices == ("toml", "environment", "command-line")


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_quotes_in_texts_are_safe(shell: str, tmp_path: Path) -> None:
    """A text with quotes and dollars stays a text."""
    parser = complete_parser([])
    [action] = [action for action in parser._actions if "--json" in action.option_strings]
    action.help = 'it\'s $(touch broken) `touch broken` "so"'
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell](list(levels(parser))), encoding="utf-8")
    assert _completed(shell, script, ["pyryrelay", "--js"]) == {"--json"}
    assert not Path("broken").exists()
