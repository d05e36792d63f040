"""``pyryrelay run``: its words become a command line of twistd, and its errors are one line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from twisted.python import usage

from pyryrelay.start import run
from pyryrelay.start.run import PROCESS_OPTIONS, Options, main, words_of_twistd

PREFIX = ["--nodaemon", "--pidfile="]


def test_options_of_the_process_are_those_of_twistd() -> None:
    """Options of the process go before the service, wherever they stand, and the others keep their order."""
    words = ["--listen", "tcp:1", "--uid", "nobody", "--grace=5", "--logfile=x=y", "--check"]
    assert words_of_twistd(words) == [
        *(*PREFIX, "--uid=nobody", "--logfile=x=y", "pyryrelay"),
        *("--listen", "tcp:1", "--grace=5", "--check"),
    ]


def test_a_pid_file_only_if_asked_for() -> None:
    """Without --pidfile there is none, and a given one counts."""
    assert words_of_twistd([]) == [*PREFIX, "pyryrelay"]
    assert words_of_twistd(["--pidfile", "a"]) == [*PREFIX, "--pidfile=a", "pyryrelay"]


@pytest.mark.parametrize("words", [["--uid"], ["--uid", "--check"]])
def test_a_missing_value(words: list[str]) -> None:
    """An option of the process without a value is refused, and takes no other option for it."""
    with pytest.raises(usage.UsageError, match="--uid: its value is missing"):
        words_of_twistd(words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--gid"], "pyryrelay: --gid: its value is missing; see pyryrelay run --help"),
        (
            ["--reactor", "nosuch"],
            "pyryrelay: --reactor: The specified reactor does not exist: 'nosuch'; "
            "write epoll, asyncio, poll or select",
        ),
        (["--uid", "no such user"], "pyryrelay: --uid or --gid: getpwnam(): name not found: 'no such user'; "),
        (["--umask", "9"], "pyryrelay: "),
        (["--bogus"], "pyryrelay: no such option --bogus; "),
        (["--chroot", "/"], "pyryrelay: --chroot is an option of twistd; "),
        (["here"], "pyryrelay: unexpected argument 'here'; "),
    ],
)
def test_errors(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line is one line and exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_a_right_command_line_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Twisted runs knows the options of both, and makes this package's service."""
    started: list[Any] = []
    monkeypatch.setattr(run, "runApp", started.append)
    assert main(["--grace", "7", "--rundir", str(tmp_path), "--admin-listen="]) == 0
    (config,) = started
    assert (config["nodaemon"], config["pidfile"], config["rundir"]) == (1, "", str(tmp_path))
    assert config.subOptions.settings.grace_s == 7
    assert config.loadedPlugins["pyryrelay"].options is Options


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names this command, the options of the process and those of the relay, and no other command."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert out.startswith("Usage: pyryrelay run [options]\n")
    assert all(f"\n  --{name} " in out for name, _, _ in PROCESS_OPTIONS)
    assert "\n  --listen " in out
    assert "    pyryrelay run --config relay.toml --check\n" in out
    assert "twistd pyryrelay" not in out
    assert "twistd -n" not in out


def test_the_command_leaves_its_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """argparse reads none of the words behind ``run``, not even those that it knows."""
    seen: list[list[str]] = []
    monkeypatch.setattr(run, "main", seen.append)
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    run.add(parser.add_subparsers(), parser)
    arguments = parser.parse_args(["run", "--json", "-h", "--listen", "", "--check"])
    assert not arguments.json
    arguments.run(None, arguments, None)
    assert seen == [["--json", "-h", "--listen", "", "--check"]]
