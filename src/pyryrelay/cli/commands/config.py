"""``pyryrelay config``: show the effective settings and where they come from, and write them in other forms."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import CommandError, other_version
from pyryrelay.cli.relay_options import as_command_line, as_environment, as_toml, parse_command_line
from pyryrelay.config.reference import CONFIG_VARIABLE
from pyryrelay.config.settings import effective, effective_settings
from pyryrelay.config.sources import COMMAND_LINE, DEFAULT, ENVIRONMENT_PREFIX, SettingsError
from pyryrelay.config.toml_file import read_toml
from pyryrelay.mounts import Settings
from pyryrelay.text import printable

__all__ = ["add"]

_EXAMPLES: Final = """\
examples:
  pyryrelay config print                                  what a relay started here and now would do
  pyryrelay config print --config relay.toml --changed    what a file changes, and what overrides it
  pyryrelay config print --config relay.toml -- --grace 60
  pyryrelay config print --running                        what the running relay does (--admin says which)
  pyryrelay config convert -- twistd -n pyryrelay --grace 60 > relay.toml
  pyryrelay config convert --to command-line --config relay.toml

Options of the relay follow after --.
"""
_PRINT: Final = """\
examples:
  pyryrelay config print                                  defaults and the environment
  pyryrelay config print --config relay.toml              the same with a file
  pyryrelay config print --config relay.toml --changed    without the defaults
  pyryrelay config print --config relay.toml -- --upgrade-quota 30/minute
  pyryrelay config print --toml > effective.toml          as a configuration file, the sources in comments
  pyryrelay config print --running                        of the running relay
  pyryrelay config print --running --json | jq -r '.[] | select(.source != "default") | .name'

A value comes from the command line, from a variable of the environment, from a file, or is the default. Secrets are
withheld. Without --running and --admin, the command needs no relay and starts none.

exit codes: 0 success, 1 a setting is wrong, or the relay could not be asked; 2 wrong command line
"""
_CONVERT: Final = """\
examples:
  pyryrelay config convert -- twistd -n pyryrelay --grace 60 --deny 192.0.2.0/24 > relay.toml
  pyryrelay config convert --environment > relay.toml     from the variables PYRYRELAY_... of this shell
  pyryrelay config convert --to environment --config relay.toml
  pyryrelay config convert --to command-line --config relay.toml

Reads a file, the environment, a command line, or several of them, of which the last one named here wins. Writes only
what they give, so defaults stay defaults. Options of twistd, and those that are no settings (--check), are left out.
Secrets are withheld.

exit codes: 0 success, 1 a setting is wrong, 2 wrong command line
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    config = commands.add_parser("config", help="show the effective settings, or convert them", epilog=_EXAMPLES)
    subcommands = config.add_subparsers(metavar="COMMAND", required=True)
    text = "show the effective settings and their sources"
    printing = subcommands.add_parser("print", help=text, epilog=_PRINT, parents=[common])
    printing.add_argument("--running", action="store_true", help="ask the running relay; --admin implies it")
    printing.add_argument("--changed", action="store_true", help="leave out settings that are the default")
    printing.add_argument("--toml", action="store_true", help="print a configuration file")
    printing.set_defaults(run=_print)
    text = "write settings as a file, as variables, or as a command line"
    convert = subcommands.add_parser("convert", help=text, epilog=_CONVERT, parents=[common])
    convert.add_argument(
        "--to",
        choices=("toml", "environment", "command-line"),
        default="toml",
        help="what to write (default: toml, a configuration file)",
    )
    convert.add_argument("--environment", action="store_true", help="read the environment")
    convert.set_defaults(run=_convert)
    for parser in (printing, convert):
        parser.add_argument("--config", metavar="FILE", help="read this configuration file")
        parser.add_argument("words", metavar="OPTION", nargs="*", help="options of the relay, after --")


def _print(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    if arguments.running or arguments.admin:
        if arguments.config or arguments.words or arguments.toml:
            raise CommandError("a running relay has its settings: leave out --config, --toml, and options of the relay")
        rows = _running(client)
    else:
        settings = _settings(arguments, arguments.environ)
        if arguments.toml:
            output.stream.write(effective(settings))
            return
        rows = [row._asdict() for row in effective_settings(settings)]
    if arguments.changed:
        rows = [row for row in rows if row["source"] != DEFAULT]
    if output.as_json:
        output.json(rows)
        return
    output.table(("SETTING", "VALUE", "SOURCE"), [(row["name"], row["value"], row["source"]) for row in rows])


def _running(client: AdminClient) -> list[dict[str, str]]:
    body = client.request("GET", "/settings").body
    try:
        return [{key: str(row[key]) for key in ("name", "value", "source")} for row in body]
    except (TypeError, KeyError):
        raise other_version("does not list settings") from None


def _settings(arguments: argparse.Namespace, env: Mapping[str, str]) -> Settings:
    """Return the settings that file, environment and words give. Raises `CommandError`."""
    try:
        parsed = parse_command_line(Settings.options(), arguments.words)
        files = [*([arguments.config] if arguments.config else []), *parsed.config_files]
        source = COMMAND_LINE
        if not files and env.get(CONFIG_VARIABLE):
            source, files = f"environment variable {CONFIG_VARIABLE}", [env[CONFIG_VARIABLE]]
        if len(files) > 1:
            problem = f"{files[0]!r} and {files[1]!r} are both given"
            raise SettingsError("config", source, problem, "put all settings into one file")
        toml = read_toml(str(Path(files[0])), source, files[0]) if files else {}
        settings = Settings.from_sources(toml, env, parsed.values, toml_name=files[0] if files else "")
    except SettingsError as error:
        raise CommandError(str(error)) from None
    if parsed.left_out:
        words = printable(" ".join(parsed.left_out))
        sys.stderr.write(f"pyryrelay: left out, because it is no setting: {words}\n")
    return settings


def _convert(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    if not (arguments.config or arguments.environment or arguments.words):
        raise CommandError("there is nothing to convert: give --config FILE, --environment, or a command line after --")
    env = arguments.environ if arguments.environment else {}
    settings = _settings(arguments, {name: text for name, text in env.items() if name.startswith(ENVIRONMENT_PREFIX)})
    try:
        lines = _written(settings, arguments.to)
    except SettingsError as error:
        raise CommandError(str(error)) from None
    if output.as_json:
        output.json({"format": arguments.to, "text": "".join(f"{line}\n" for line in lines)})
    else:
        output.stream.writelines(f"{line}\n" for line in lines)


def _written(settings: Settings, form: str) -> Sequence[str]:
    if form == "toml":
        return [*as_toml(settings)]
    if form == "environment":
        return [*as_environment(settings)]
    return [shlex.join(["twistd", "-n", "pyryrelay", *as_command_line(settings)])]
