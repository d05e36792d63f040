"""The command ``pyryrelay``: visit a relay, and query and control a running one through its admin API.

`COMMANDS` has the commands of every relay, each a module of `pyryrelay.cli.commands`. Protocols bring commands of their
own; see `pyryrelay.cli.protocol_commands`. Only the command that is used is imported, so the start stays fast.

Exit codes: 0 success, 1 the relay refused or could not be reached, 2 wrong command line. Errors are one line on
standard error. On a terminal, results are aligned tables and sentences; in a pipe, they are bare rows with columns
separated by tabs. With ``--json``, errors are JSON on standard output, too, under the key ``error``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from pyryrelay import __version__
from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.arguments import DEFAULT_URL, TOKEN_VARIABLE, URL_VARIABLE, Parser, admin_url, common_options
from pyryrelay.cli.output import Output, discard_output
from pyryrelay.cli.protocol_commands import ENTRY_POINTS, AddCommand, CommandError, Run
from pyryrelay.text import printable

__all__ = ["COMMANDS", "URL_VARIABLE", "complete_parser", "main"]

COMMANDS: Final[Mapping[str, str]] = {
    "probe": "visit a relay like its clients, and explain what is wrong",
    "status": "show connections, refusals and limits in force",
    "top": "show live what the relay does",
    "jail": "show, jail and release clients",
    "explain": "explain whether a client is admitted, and why not",
    "whoami": "explain how the client address is derived",
    "cluster": "show the cluster and what is wrong with it, find an instance, or move keys to others",
    "config": "show the effective settings, or convert them",
    "reload": "read the configuration and the list files again",
    "upgrade": "start another process on the same ports, and drain this one",
    "completion": "print a script that completes this command",
}
"""Each command and its line in the help; the module of `pyryrelay.cli.commands` has the same name."""

_LATER_ROOMS: Final = {
    "run": "start the relay in the foreground",
}
"""What commands do that need later rooms than this one. They are entry points, as those of protocols are."""

_EXAMPLES: Final = f"""\
examples:
  pyryrelay probe wss://relay.example      visit a relay like its clients, and explain what is wrong
  pyryrelay status                         show connections, refusals, traffic and limits
  pyryrelay top                            the same live
  pyryrelay jail list                      show jailed clients, and for how long
  pyryrelay explain 192.0.2.7              explain why it is refused
  pyryrelay config print --admin {DEFAULT_URL}
                                           show the settings in force, and where they come from
  pyryrelay reload                         read the configuration and the list files again

`pyryrelay COMMAND --help` has more examples. Most commands need a running relay. They connect to its admin listener
(--admin-listen of twistd pyryrelay) at {DEFAULT_URL}, or where --admin or the environment variable
{URL_VARIABLE} points:
  pyryrelay --admin http://10.0.0.5:9090 jail list
  pyryrelay --admin unix:/run/pyryrelay/admin.sock jail list
If the listener asks for a token, name the file that has it with --admin-token-file or {TOKEN_VARIABLE}.

exit codes: 0 success, 1 the relay refused or could not be reached, 2 wrong command line
"""


def _parser() -> tuple[Parser, Any, Parser]:
    """Return the parser, what commands are added to, and the options that they share."""
    common = common_options()
    parser = Parser(
        prog="pyryrelay",
        description="Run pyryrelay, or query and control one that is running.",
        epilog=_EXAMPLES,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"pyryrelay {__version__}")
    return parser, parser.add_subparsers(metavar="COMMAND", required=True), common


def _add_commands(commands: Any, common: argparse.ArgumentParser, used: str | None) -> None:
    """Add the command that is used, and otherwise the names of all. Raises `CommandError` if it cannot be loaded."""
    if used is not None and used in COMMANDS:
        _adder(used)(commands, common)
        return
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    # It takes as long to import as everything else together.
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name != used:
            commands.add_parser(entry.name, help=_LATER_ROOMS.get(entry.name, f"commands of the protocol {entry.name}"))
            continue
        try:
            entry.load()(commands, common)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise CommandError(f"the command {entry.name} cannot be loaded ({problem}): reinstall pyryrelay") from None


def _adder(name: str) -> AddCommand:
    add: AddCommand = import_module(f"pyryrelay.cli.commands.{name}").add
    return add


def complete_parser(others: Iterable[AddCommand] = ()) -> argparse.ArgumentParser:
    """Return the parser with all commands of every relay and ``others``, for documentation and shell completion."""
    parser, commands, common = _parser()
    for add in (*map(_adder, COMMANDS), *others):
        add(commands, common)
    return parser


def _command_in(words: Sequence[str]) -> str | None:
    """Return the first word of a command line that is neither an option nor the value of one."""
    remaining = iter(words)
    for word in remaining:
        if word in ("--admin", "--admin-token-file"):
            next(remaining, None)
        elif not word.startswith("-"):
            return word
    return None


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run one command and return the exit code; a wrong command line raises `SystemExit` with code 2."""
    words = sys.argv[1:] if argv is None else argv
    environ = os.environ if env is None else env
    parser, commands, common = _parser()
    try:
        _add_commands(commands, common, _command_in(words))
    except CommandError as error:
        return _report(error, as_json="--json" in words)
    unset = argparse.Namespace(admin=None, admin_token_file=None, json=False)
    arguments = parser.parse_args(words, unset)
    arguments.environ = environ
    client = _client(parser, arguments, environ)
    run: Run = arguments.run
    try:
        code = run(client, arguments, Output(sys.stdout, arguments.json))
        sys.stdout.flush()
    except CommandError as error:
        return _report(error, as_json=arguments.json)
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        discard_output()
        return 0
    return code or 0


def _client(parser: Parser, arguments: argparse.Namespace, environ: Mapping[str, str]) -> AdminClient:
    """Return the client of the relay that the user chose; ends the process for what cannot be one."""
    url = arguments.admin or environ.get(URL_VARIABLE) or DEFAULT_URL
    token_file = arguments.admin_token_file or environ.get(TOKEN_VARIABLE) or None
    try:
        return AdminClient(admin_url(url), token_file)
    except argparse.ArgumentTypeError as error:
        parser.error(f"{'argument --admin' if arguments.admin else URL_VARIABLE}: {error}")


def _report(error: CommandError, *, as_json: bool) -> int:
    """Write an error, and return the exit code."""
    if as_json:
        Output(sys.stdout, as_json=True).json({"error": str(error)})
    else:
        sys.stderr.write(printable(f"pyryrelay: {error}") + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
