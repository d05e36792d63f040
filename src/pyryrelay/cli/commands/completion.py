"""``pyryrelay completion``: print a script that completes this command in a shell."""

from __future__ import annotations

import argparse
from typing import Any, Final

from pyryrelay.cli.command import complete_parser
from pyryrelay.cli.completion import SCRIPTS, levels
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import ENTRY_POINTS, AddCommand

__all__ = ["add"]

_EXAMPLES: Final = """\
examples:
  pyryrelay completion bash > ~/.local/share/bash-completion/completions/pyryrelay
  pyryrelay completion zsh > ~/.zfunc/_pyryrelay           with fpath+=~/.zfunc before compinit in ~/.zshrc
  pyryrelay completion fish > ~/.config/fish/completions/pyryrelay.fish

Create the folder first if it does not exist (mkdir -p). New shells complete commands, options and their values then.
Print the script again after an upgrade. The command needs no relay.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "print a script that completes this command"
    completion = commands.add_parser("completion", help=text, epilog=_EXAMPLES, parents=[common])
    completion.add_argument("shell", choices=tuple(SCRIPTS), help="the shell that the script is for")
    completion.set_defaults(run=_completion)


def _completion(client: Any, arguments: argparse.Namespace, output: Output) -> None:
    script = SCRIPTS[arguments.shell](list(levels(complete_parser(_of_entry_points()))))
    if output.as_json:
        output.json({"shell": arguments.shell, "script": script})
    else:
        output.lines(script.splitlines())


def _of_entry_points() -> list[AddCommand]:
    """Return what adds the commands that are installed besides those of this room."""
    from importlib.metadata import entry_points

    return [entry.load() for entry in entry_points(group=ENTRY_POINTS)]
