"""The command ``pyryrelay config``."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path

import pytest
from tests.support.command import Ran, Runner
from tests.support.fake_relay import FakeRelay

from pyryrelay.mounts import Settings

ROWS = [
    {"name": "--grace", "value": "60", "source": "command line"},
    {"name": "--deny", "value": "", "source": "default"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file."""
    path = tmp_path / "relay.toml"
    path.write_text('grace = 60\ndeny = ["192.0.2.0/24", "2001:db8::/32"]\n')
    return path


def test_prints_every_setting_with_its_source(run: Runner, file: Path) -> None:
    """The sources are those of the start: file, environment, words after ``--``, and the default."""
    ran = run("config", "print", "--config", str(file), "--", "--max-phones", "3", env={"PYRYRELAY_GRACE": "5"})
    rows = {name: (value, source) for name, value, source in (line.split("\t") for line in ran.out.splitlines())}
    assert (ran.code, ran.err, len(rows)) == (0, "", len(Settings.options()))
    assert rows["--grace"] == ("5", "environment variable PYRYRELAY_GRACE")
    assert rows["--deny"] == ("192.0.2.0/24 2001:db8::/32", f"{file}: deny")
    assert rows["--max-phones"] == ("3", "command line")
    assert rows["--allow"] == ("", "default")


def test_only_what_is_not_the_default(run: Runner, file: Path) -> None:
    """``--changed`` leaves defaults out; the file can come from the environment."""
    ran = run("config", "print", "--changed", "--json", env={"PYRYRELAY_CONFIG": str(file)})
    assert {row["name"] for row in json.loads(ran.out)} == {"--grace", "--deny"}


def test_as_a_file(run: Runner, file: Path) -> None:
    """``--toml`` prints a file with all settings that gives the same ones."""
    ran = run("config", "print", "--toml", "--config", str(file), env={})
    assert f"grace = 60  # from {file}: grace" in ran.out
    again = Settings.from_sources(tomllib.loads(ran.out), {}, {})
    assert again == Settings.from_sources(tomllib.loads(file.read_text()), {}, {})


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--", "--grace", "soon"), "--grace (from command line): 'soon' is not a number of seconds"),
        (("--", "--grasp", "3"), "option --grasp not recognized; did you mean --grace?"),
        (("--", "grace"), "unexpected argument 'grace'"),
        (("--config", "/no/such/file"), "--config (from command line): '/no/such/file' cannot be read"),
        (("--config", "a", "--", "--config", "b"), "'a' and 'b' are both given; put all settings into one file"),
        (("--running", "--config", "a"), "a running relay has its settings: leave out --config"),
    ],
)
def test_wrong_settings_are_one_line(run: Runner, words: tuple[str, ...], problem: str) -> None:
    """What the relay would refuse is told in the same words, with exit code 1."""
    ran = run("config", "print", *words, env={})
    assert (ran.code, ran.out) == (1, "")
    assert problem in ran.err


def test_asks_a_running_relay(run: Runner, relay: FakeRelay) -> None:
    """With ``--running`` or ``--admin``, the settings are those of the relay."""
    relay.body = ROWS
    assert run("config", "print", "--running").out == "--grace\t60\tcommand line\n--deny\t\tdefault\n"
    assert run("config", "print", "--admin", relay.url, "--changed", env={}).out == "--grace\t60\tcommand line\n"
    assert json.loads(run("config", "print", "--running", "--json").out) == ROWS
    assert relay.requests == [("GET", "/settings")] * 3
    relay.body = {}
    assert run("config", "print", "--running").out == ""
    relay.body = [1]
    assert "does not list settings: use the same version" in run("config", "print", "--running").err


def test_no_relay_is_needed(run: Runner) -> None:
    """Printing and converting do not read a token, and connect to nothing."""
    env = {"PYRYRELAY_ADMIN_URL": "http://127.0.0.1:1"}
    assert run("config", "convert", "--admin-token-file", "/no", "--", "--grace", "1", env=env).out.endswith(
        "grace = 1\n"
    )


def test_converts_a_command_line_and_back(run: Runner, tmp_path: Path) -> None:
    """A command line of twistd becomes a file, and the file the same command line."""
    words = [
        "--grace",
        "60",
        "--deny",
        "192.0.2.0/24",
        "--deny",
        "2001:db8::/32",
        "--no-pyry",
        "--refusal",
        "denied=drop",
    ]
    ran = run("config", "convert", "--", "/usr/bin/twistd", "-n", "pyryrelay", *words, "--check", env={})
    assert ran.err == "pyryrelay: left out, because it is no setting: twistd -n --check\n"
    path = tmp_path / "relay.toml"
    path.write_text(ran.out)
    assert tomllib.loads(ran.out)["deny"] == ["192.0.2.0/24", "2001:db8::/32"]
    line = run("config", "convert", "--to", "command-line", "--config", str(path), env={}).out
    assert line.startswith("twistd -n pyryrelay ")
    again = run("config", "convert", "--", *shlex.split(line), env={})
    assert again.out == ran.out


def test_converts_the_environment(run: Runner, tmp_path: Path) -> None:
    """Variables become a file with what they set, and nothing of the shell besides."""
    env = {"PYRYRELAY_UPGRADE_QUOTA": "30/minute burst 60", "PYRYRELAY_DENY": "192.0.2.7 ::1", "HOME": "/root"}
    out = run("config", "convert", "--environment", env=env).out
    assert tomllib.loads(out) == {"upgrade-quota": "30/minute burst 60", "deny": ["192.0.2.7/32", "::1/128"]}
    path = tmp_path / "relay.toml"
    path.write_text(out)
    ran = run("config", "convert", "--to", "environment", "--config", str(path), env={"PYRYRELAY_GRACE": "1"})
    assert sorted(ran.out.splitlines()) == [
        "PYRYRELAY_DENY='192.0.2.7/32 ::1/128'",
        "PYRYRELAY_UPGRADE_QUOTA='30/minute burst 60'",
    ]


def test_there_must_be_something_to_convert(run: Runner) -> None:
    """Without a source the error names all of them."""
    assert run("config", "convert", env={}) == Ran(
        1,
        "",
        "pyryrelay: there is nothing to convert: give --config FILE, --environment, or a command line after --\n",
    )


def test_conversion_as_json(run: Runner) -> None:
    """With ``--json`` the text is in an object."""
    ran = run("config", "convert", "--json", "--to", "command-line", "--", "--grace", "1", env={})
    assert json.loads(ran.out) == {"format": "command-line", "text": "twistd -n pyryrelay --grace 1\n"}
