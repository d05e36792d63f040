"""The command ``pyryrelay run``: the relay in the foreground, exactly as under ``twistd -n``, without ``twistd``.

Installers such as pipx and uv put only the commands of the package itself on PATH, and ``twistd`` is Twisted's. This
module runs the same code of Twisted's, told about this one service. Twisted need not look for plugins, so it starts
faster, and no cache of plugins has to be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

from twisted.application.service import ServiceMaker
from twisted.python import usage
from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined]

from pyryrelay.cli.completion import Flag
from pyryrelay.config.reference import CHECK_HELP, CONFIG_HELP, HELP_HELP, help_lines
from pyryrelay.mounts import Settings
from pyryrelay.start import twistd
from pyryrelay.start.twistd import makeService
from pyryrelay.text import printable

__all__ = ["Options", "add", "main", "makeService"]

COMMAND: Final = "pyryrelay run"
_SUBCOMMAND: Final = "pyryrelay"

PROCESS_OPTIONS: Final = (
    (
        "reactor",
        "NAME",
        "The event loop: `epoll` or `asyncio` on Linux. [default: epoll on Linux]",
    ),
    ("uid", "USER", "The user that the relay becomes once its ports are open; needs root. [default: none]"),
    ("gid", "GROUP", "The group that it becomes then. [default: that of the user]"),
    ("umask", "OCTAL", "The file creation mask. [default: that of the shell]"),
    ("rundir", "DIR", "The folder to work in. Relative file names of the other options start there. [default: .]"),
    ("logfile", "FILE", "Log to this file, which SIGUSR1 rotates. [default: standard output]"),
    ("pidfile", "FILE", "Write the number of the process to this file. [default: none, unlike twistd]"),
)
"""What twistd calls its own options, as far as they make sense in the foreground: name, value, help."""

COMMAND_OPTIONS: Final = (("config", "FILE", CONFIG_HELP), ("check", "", CHECK_HELP), ("help", "", HELP_HELP))
"""Options of the command line alone, in the same form."""


class Options(twistd.Options):
    """The options of the relay, with a help text that names this command and the options of the process."""

    def getSynopsis(self) -> str:
        """Return the first line of the help."""
        return f"Usage: {COMMAND} [options]"

    def getUsage(self, width: int | None = None) -> str:
        """Return the options by group, first those of the process, then examples."""
        lines = ["", "The process"]
        for name, metavar, text in PROCESS_OPTIONS:
            lines += help_lines(f"--{name} {metavar}", text, width or 80)
        text = super().getUsage(width)
        for command in ("twistd -n pyryrelay", "twistd pyryrelay"):
            text = text.replace(command, COMMAND)
        return "\n".join([*lines, text])


class _Process(ServerOptions):
    """The options of twistd, for this service alone, which need not be found among the plugins."""

    words: Sequence[str] = ()
    """What was parsed."""

    @staticmethod
    def _getPlugins(interface: Any, package: Any = None) -> list[Any]:  # noqa: N802
        return [ServiceMaker(_SUBCOMMAND, "pyryrelay.start.run", "", _SUBCOMMAND)]


def words_of_twistd(words: Sequence[str]) -> list[str]:
    """Return the command line of twistd for words behind ``pyryrelay run``, in which the options may be mixed.

    Raises `usage.UsageError` if the value of an option of the process is missing.
    """
    named = {f"--{name}" for name, _, _ in PROCESS_OPTIONS}
    process, relay = ["--nodaemon", "--pidfile="], list[str]()
    remaining = iter(words)
    for word in remaining:
        if word.partition("=")[0] not in named:
            relay.append(word)
            continue
        name, has_value, value = word.partition("=")
        if not has_value and (value := next(remaining, "--")).startswith("--"):
            raise usage.UsageError(f"{name}: its value is missing")
        process.append(f"{name}={value}")
    return [*process, _SUBCOMMAND, *relay]


def main(words: Sequence[str]) -> int:
    """Run the relay until it ends, and return the exit code. A wrong command line raises `SystemExit` with code 2."""
    try:
        words = words_of_twistd(words)
    except usage.UsageError as error:
        _fail(_complaint(str(error)))
    return main_of_twistd(words)


def main_of_twistd(words: Sequence[str]) -> int:
    """Do what `main` does, with the words of twistd."""
    config: Any = _Process()  # type: ignore[no-untyped-call]
    config.words = words
    try:
        config.parseOptions(words)
    except usage.UsageError as error:
        _fail(_complaint(str(error)))
    except KeyError as error:
        # Of the modules pwd and grp.
        _fail(f"--uid or --gid: {error.args[0]}; name a user and a group of this machine")
    runApp(config)
    return 0


def _complaint(text: str) -> str:
    """Return one line for an error of Twisted's about an option of the process."""
    line = text.strip().partition("\n")[0].rstrip(".")
    if "reactor" in line:
        return f"--reactor: {line}; write epoll, asyncio, poll or select"
    return f"{line}; see {COMMAND} --help"


def _fail(line: str) -> NoReturn:
    sys.stderr.write(printable(f"pyryrelay: {line}") + "\n")
    raise SystemExit(2)


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command; see `pyryrelay.cli.protocol_commands.AddCommand`.

    Its words are not argparse's to read, so no character begins an option.
    """
    parser = commands.add_parser("run", help="start the relay in the foreground", prefix_chars="\0", add_help=False)
    parser.add_argument("words", nargs="*")
    parser.set_defaults(run=lambda client, arguments, output: main(arguments.words), flags=tuple(_flags()))


def _flags() -> Iterator[Flag]:
    """Yield the options that a shell completes: those of the process and of the relay."""
    for name, metavar, text in (*PROCESS_OPTIONS, *COMMAND_OPTIONS):
        choices = ("epoll", "asyncio") if name == "reactor" else ()
        yield Flag(f"--{name}", _first_sentence(text), bool(metavar), choices, metavar in ("FILE", "DIR"))
    for option in Settings.options():
        if option.type.flag:
            yield Flag(f"--no-{option.name}", f"Turn --{option.name} off.")
        is_file = option.type.metavar == "FILE"
        yield Flag(f"--{option.name}", _first_sentence(option.help), not option.type.flag, (), is_file)


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")
