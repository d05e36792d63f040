"""The command ``pyryrelay``: query and control a running relay through its admin API (docs/reference/admin-api.md).

It uses only the standard library, so it starts fast. Protocols bring commands of their own; see
`pyryrelay.cli.protocol_commands`.

Exit codes: 0 success, 1 the relay refused or could not be reached, 2 wrong command line. Errors are one line on
standard error. On a terminal, results are aligned tables and sentences; in a pipe, they are bare rows with columns
separated by tabs. With ``--json``, errors are JSON on standard output, too, under the key ``error``. Times are seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from pyryrelay import __version__
from pyryrelay.cli.admin_client import UNIX, AdminClient
from pyryrelay.cli.output import Output, discard_output
from pyryrelay.cli.protocol_commands import ENTRY_POINTS, CommandError, Run
from pyryrelay.guard.jail import MAX_DURATION_S
from pyryrelay.text import printable, quoted

__all__ = ["main"]

DEFAULT_URL: Final = "http://127.0.0.1:9090"
URL_VARIABLE: Final = "PYRYRELAY_ADMIN_URL"
MAX_ENTRIES: Final = 10_000

_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(?:\d{1,9}[smhd]){1,4}|\d{1,9}", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]+:[ -~]*")

_EXAMPLES: Final = f"""\
examples:
  pyryrelay jail list                      show jailed clients, and for how long
  pyryrelay jail add 192.0.2.7 --for 1h    jail a client
  pyryrelay jail release 192.0.2.7         release it
  pyryrelay reload                         read the configuration and the list files again
  pyryrelay whoami --peer 10.0.0.7 --header 'X-Forwarded-For: 203.0.113.9, 10.0.0.7'
                                           explain which client the relay sees behind a proxy

The relay must be running. The command connects to its admin listener (--admin-listen of twistd pyryrelay) at
{DEFAULT_URL}, or where --admin or the environment variable {URL_VARIABLE} points:
  pyryrelay --admin http://10.0.0.5:9090 jail list
  pyryrelay --admin unix:/run/pyryrelay/admin.sock jail list

exit codes: 0 success, 1 the relay refused or could not be reached, 2 wrong command line
"""
_JAIL_EXAMPLES: Final = """\
examples:
  pyryrelay jail list
  pyryrelay jail list | cut -f1            networks only
  pyryrelay jail add 192.0.2.7             jail a client for 10 minutes
  pyryrelay jail add 2001:db8::7 --for 2h30m
  pyryrelay jail release 192.0.2.7

An IPv6 address stands for its client: its /64, or what --ipv6-prefix of twistd pyryrelay says.
To block networks of more than one client, use the deny list (--deny of twistd pyryrelay).
"""
_WHOAMI_EXAMPLES: Final = """\
examples:
  pyryrelay whoami                         explain this request
  pyryrelay whoami --peer 10.0.0.7 --header 'X-Forwarded-For: 203.0.113.9, 10.0.0.7'
  pyryrelay whoami --peer unix --header 'Forwarded: for=203.0.113.9'

The command changes nothing and spends no quota.
"""


def _jail_list(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    response = client.request("GET", f"/jail?limit={MAX_ENTRIES}")
    if output.as_json:
        output.json(response.body)
        return
    entries = sorted(_entries(response.body), key=lambda entry: -float(entry["seconds_left"]))
    if not entries:
        output.message("no client is jailed")
        return
    rows = [(str(e["network"]), _duration(float(e["seconds_left"])), _times(int(e["times"]))) for e in entries]
    output.table(("NETWORK", "LEFT", "SENTENCES"), rows)
    if response.total is not None and response.total > len(entries):
        output.message(f"{response.total - len(entries)} more are not shown")


def _entries(body: Any) -> Sequence[Mapping[str, Any]]:
    """Return the entries of a listing. Raises `CommandError` for other data."""
    try:
        return [
            {"network": e["network"], "seconds_left": float(e["seconds_left"]), "times": int(e["times"])} for e in body
        ]
    except (TypeError, KeyError, ValueError):
        raise CommandError(
            "the answer does not list jailed clients: use the same version of pyryrelay as the relay"
        ) from None


def _jail_add(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    response = client.request("POST", "/jail", {"address": arguments.address, "seconds": arguments.duration_s})
    if output.as_json:
        output.json(response.body)
        return
    (entry,) = _entries([response.body])
    output.message(f"{entry['network']} is jailed for {_duration(entry['seconds_left'])}")


def _jail_release(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    response = client.request("DELETE", f"/jail/{quote(arguments.address, safe='')}")
    if output.as_json:
        output.json(response.body)
        return
    output.message(f"{arguments.address} is released")


def _reload(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    body = client.request("POST", "/reload").body
    if output.as_json:
        output.json(body)
        return
    changed, restart = (_texts(body, key) for key in ("changed", "needs_restart"))
    if not changed and not restart:
        output.message("nothing has changed")
        return
    output.table(("SETTING", "NOW"), [*((n, "changed") for n in changed), *((n, "needs a restart") for n in restart)])


def _whoami(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    parameters = [("peer", arguments.peer)] if arguments.peer else []
    parameters += [("header", header) for header in arguments.header]
    query = f"?{urlencode(parameters, encoding='latin-1')}" if parameters else ""
    body = client.request("GET", f"/whoami{query}").body
    if output.as_json:
        output.json(body)
    else:
        output.lines(_texts(body, "steps"))


def _texts(body: Any, key: str) -> list[str]:
    found = body.get(key) if isinstance(body, dict) else None
    if not isinstance(found, list):
        raise CommandError(f"the answer has no {key}: use the same version of pyryrelay as the relay")
    return [str(text) for text in found]


def _duration(seconds: float) -> str:
    """Format a duration in at most two units: ``9m 59s``, ``2d 4h``."""
    left = max(1, round(seconds))
    parts: list[str] = []
    for unit, unit_s in reversed(_UNITS_S.items()):
        count, left = divmod(left, int(unit_s))
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0"))


def _times(times: int) -> str:
    return str(times) if times else "by hand"


def _seconds(text: str) -> float:
    if not _DURATION.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is not a duration: write 90s, 10m, 2h30m, 7d, or a number of seconds"
        )
    parts = [(text, "s")] if text.isdigit() else re.findall(r"(\d+)([smhd])", text)
    seconds = sum(int(number) * _UNITS_S[unit] for number, unit in parts)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is zero: write 1s or more")
    if seconds > MAX_DURATION_S:
        most = _duration(MAX_DURATION_S)
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is too long: write up to {most}, or put the address on the deny list"
        )
    return seconds


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a header: write 'X-Forwarded-For: 203.0.113.9'")
    return text


def _admin_url(text: str) -> str:
    if text.startswith(UNIX):
        if text == UNIX:
            raise argparse.ArgumentTypeError(f"{quoted(text)} has no path: write unix:/run/pyryrelay/admin.sock")
        return text
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and "@" not in parts.netloc and not parts.path.strip("/") and not parts.query
    except ValueError:
        fits = False
    if not fits or not text.isascii() or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is not the URL of an admin listener: write {DEFAULT_URL}, or unix:PATH"
        )
    return text


class _Parser(argparse.ArgumentParser):
    """Report a wrong command line in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, printable(f"{self.prog}: {message}; see {self.prog} --help") + "\n")


def _options() -> _Parser:
    """Return the options that may stand before and after the name of a command.

    They have no defaults: argparse would let the default of the second place override a value from the first.
    """
    unset = argparse.SUPPRESS
    options = _Parser(add_help=False)
    admin_help = f"the relay's admin listener, or unix:PATH (default: {DEFAULT_URL})"
    options.add_argument("--admin", metavar="URL", default=unset, help=admin_help)
    options.add_argument("--json", action="store_true", default=unset, help="print results and errors as JSON")
    return options


def _parser() -> tuple[_Parser, Any, _Parser]:
    """Return the parser, what commands are added to, and the options that they share."""
    raw = argparse.RawDescriptionHelpFormatter
    common = _options()
    parser = _Parser(
        prog="pyryrelay",
        description="Query and control a running pyryrelay. (twistd pyryrelay starts it.)",
        epilog=_EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"pyryrelay {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    jail = commands.add_parser(
        "jail", help="show, jail and release clients", epilog=_JAIL_EXAMPLES, formatter_class=raw
    )
    _add_jail(jail.add_subparsers(metavar="COMMAND", required=True), common)
    reload_help = "read the configuration and the list files again"
    reload = commands.add_parser("reload", help=reload_help, parents=[common])
    reload.set_defaults(run=_reload)
    whoami = commands.add_parser(
        "whoami",
        help="explain how the client address is derived",
        epilog=_WHOAMI_EXAMPLES,
        formatter_class=raw,
        parents=[common],
    )
    whoami.add_argument(
        "--peer", metavar="ADDRESS", help="the address that connects, or unix (default: that of this command)"
    )
    whoami.add_argument(
        "--header",
        metavar="NAME:VALUE",
        type=_header,
        action="append",
        default=[],
        help="a header that it sends; repeatable",
    )
    whoami.set_defaults(run=_whoami)
    return parser, commands, common


def _add_commands_of_protocols(commands: Any, common: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Add the commands that protocols bring, and load the one that is used. Raises `CommandError` if that fails."""
    used = _command_in(words)
    if used in commands.choices:
        return
    # It takes as long to import as everything else together.
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name != used:
            commands.add_parser(entry.name, help=f"commands of the protocol {entry.name}")
            continue
        try:
            entry.load()(commands, common)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise CommandError(f"the command {entry.name} cannot be loaded ({problem}): reinstall pyryrelay") from None


def _command_in(words: Sequence[str]) -> str | None:
    """Return the first word of a command line that is neither an option nor the value of one."""
    remaining = iter(words)
    for word in remaining:
        if word == "--admin":
            next(remaining, None)
        elif not word.startswith("-"):
            return word
    return None


def _add_jail(commands: Any, common: argparse.ArgumentParser) -> None:
    listing = commands.add_parser("list", help="show jailed clients", parents=[common])
    listing.set_defaults(run=_jail_list)
    add = commands.add_parser("add", help="jail a client", parents=[common])
    add.add_argument("address", metavar="ADDRESS")
    add.add_argument(
        "--for",
        dest="duration_s",
        metavar="TIME",
        type=_seconds,
        default=600.0,
        help="90s, 10m, 2h30m, 7d or a number of seconds (default: 10m)",
    )
    add.set_defaults(run=_jail_add)
    release = commands.add_parser("release", help="release a client", parents=[common])
    release.add_argument("address", metavar="ADDRESS")
    release.set_defaults(run=_jail_release)


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run one command and return the exit code; a wrong command line raises `SystemExit` with code 2."""
    words = sys.argv[1:] if argv is None else argv
    parser, commands, common = _parser()
    try:
        _add_commands_of_protocols(commands, common, words)
    except CommandError as error:
        return _report(error, as_json="--json" in words)
    arguments = parser.parse_args(words, argparse.Namespace(admin=None, json=False))
    variable = (os.environ if env is None else env).get(URL_VARIABLE)
    try:
        url = _admin_url(arguments.admin or variable or DEFAULT_URL)
    except argparse.ArgumentTypeError as error:
        parser.error(f"{'argument --admin' if arguments.admin else URL_VARIABLE}: {error}")
    run: Run = arguments.run
    try:
        code = run(AdminClient(url), arguments, Output(sys.stdout, arguments.json))
        sys.stdout.flush()
    except CommandError as error:
        return _report(error, as_json=arguments.json)
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        discard_output()
        return 0
    return code or 0


def _report(error: CommandError, *, as_json: bool) -> int:
    """Write an error, and return the exit code."""
    if as_json:
        Output(sys.stdout, as_json=True).json({"error": str(error)})
    else:
        sys.stderr.write(printable(f"pyryrelay: {error}") + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
