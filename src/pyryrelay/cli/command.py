"""`pyryrelay`: ask a running relay things, and tell it some. A client of its admin API (docs/reference/admin-api.md).

Standard library only, so it starts fast. Exit codes: 0 it was done, 1 the relay said no or could not be asked, 2 the
command line was wrong. Errors are one line on standard error. Tables are aligned and explained for people; into a pipe
go bare rows, columns separated by a tab. With ``--json`` errors are JSON on standard output, with the key ``error``.
Times are seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TextIO
from urllib.parse import quote, urlencode, urlsplit

from pyryrelay import __version__
from pyryrelay.cli.admin_client import UNIX, AdminClient, CommandError
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
  pyryrelay jail list                      who is locked out, and for how long
  pyryrelay jail add 192.0.2.7 --for 1h    lock a client out
  pyryrelay jail release 192.0.2.7         let it in again
  pyryrelay reload                         read the configuration and the list files again
  pyryrelay whoami --peer 10.0.0.7 --header 'X-Forwarded-For: 203.0.113.9, 10.0.0.7'
                                           which client the relay sees behind a proxy, step by step

The relay has to run, and is asked at its admin listener (--admin-listen of twistd pyryrelay). That is
{DEFAULT_URL} unless --admin or the environment variable {URL_VARIABLE} says otherwise:
  pyryrelay --admin http://10.0.0.5:9090 jail list
  pyryrelay --admin unix:/run/pyryrelay/admin.sock jail list

exit codes: 0 done, 1 the relay said no or could not be asked, 2 wrong command line
"""
_JAIL_EXAMPLES: Final = """\
examples:
  pyryrelay jail list
  pyryrelay jail list | cut -f1            networks alone
  pyryrelay jail add 192.0.2.7             for 10 minutes
  pyryrelay jail add 2001:db8::7 --for 2h30m
  pyryrelay jail release 192.0.2.7

An IPv6 address stands for the client it belongs to, its /64 unless --ipv6-prefix of the relay says otherwise.
Networks of more than one client go on the deny list (--deny of twistd pyryrelay).
"""
_WHOAMI_EXAMPLES: Final = """\
examples:
  pyryrelay whoami                         this very request
  pyryrelay whoami --peer 10.0.0.7 --header 'X-Forwarded-For: 203.0.113.9, 10.0.0.7'
  pyryrelay whoami --peer unix --header 'Forwarded: for=203.0.113.9'

Nothing is changed and no quota is spent.
"""


@dataclass(frozen=True, slots=True)
class _Output:
    """Where results go, and how: as JSON, as tables for people, or as bare rows."""

    stream: TextIO
    as_json: bool

    @property
    def for_people(self) -> bool:
        return self.stream.isatty()

    def json(self, body: object) -> None:
        self.stream.write(json.dumps(body, indent=2 if self.for_people else None) + "\n")

    def lines(self, lines: Sequence[str]) -> None:
        self.stream.writelines(f"{printable(line)}\n" for line in lines)

    def remark(self, line: str) -> None:
        """What a person wants to hear, and a pipe does not."""
        if self.for_people:
            self.lines([line])

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows, the last column unpadded; without titles and padding in a pipe."""
        if not self.for_people:
            for row in rows:
                self.stream.write("\t".join(map(printable, row)) + "\n")
            return
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        for row in (titles, *rows):
            cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
            self.lines(["  ".join(cells).rstrip()])


def _jail_list(relay: AdminClient, asked: argparse.Namespace, output: _Output) -> None:
    answer = relay.ask("GET", f"/jail?limit={MAX_ENTRIES}")
    if output.as_json:
        output.json(answer.body)
        return
    entries = sorted(_entries(answer.body), key=lambda entry: -float(entry["seconds_left"]))
    if not entries:
        output.remark("nobody is jailed")
        return
    rows = [(str(e["network"]), _duration(float(e["seconds_left"])), _times(int(e["times"]))) for e in entries]
    output.table(("NETWORK", "LEFT", "SENTENCES"), rows)
    if answer.total is not None and answer.total > len(entries):
        output.remark(f"{answer.total - len(entries)} more are not shown")


def _entries(body: Any) -> Sequence[Mapping[str, Any]]:
    """The entries of a listing. Raises `CommandError` if they are none."""
    try:
        return [
            {"network": e["network"], "seconds_left": float(e["seconds_left"]), "times": int(e["times"])} for e in body
        ]
    except (TypeError, KeyError, ValueError):
        raise CommandError("the answer is not a jail's: use the same version of pyryrelay as the relay") from None


def _jail_add(relay: AdminClient, asked: argparse.Namespace, output: _Output) -> None:
    answer = relay.ask("POST", "/jail", {"address": asked.address, "seconds": asked.duration_s})
    if output.as_json:
        output.json(answer.body)
        return
    (entry,) = _entries([answer.body])
    output.remark(f"{entry['network']} is jailed for {_duration(entry['seconds_left'])}")


def _jail_release(relay: AdminClient, asked: argparse.Namespace, output: _Output) -> None:
    answer = relay.ask("DELETE", f"/jail/{quote(asked.address, safe='')}")
    if output.as_json:
        output.json(answer.body)
        return
    output.remark(f"{asked.address} is released")


def _reload(relay: AdminClient, asked: argparse.Namespace, output: _Output) -> None:
    body = relay.ask("POST", "/reload").body
    if output.as_json:
        output.json(body)
        return
    changed, restart = (_texts(body, key) for key in ("changed", "needs_restart"))
    if not changed and not restart:
        output.remark("nothing has changed")
        return
    output.table(("SETTING", "NOW"), [*((n, "changed") for n in changed), *((n, "needs a restart") for n in restart)])


def _whoami(relay: AdminClient, asked: argparse.Namespace, output: _Output) -> None:
    parameters = [("peer", asked.peer)] if asked.peer else []
    parameters += [("header", header) for header in asked.header]
    body = relay.ask("GET", "/whoami" + (f"?{urlencode(parameters, encoding='latin-1')}" if parameters else "")).body
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
    """Two units at most: ``9m 59s``, ``2d 4h``."""
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
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no duration: write 90s, 10m, 2h30m, 7d, or seconds alone")
    parts = [(text, "s")] if text.isdigit() else re.findall(r"(\d+)([smhd])", text)
    seconds = sum(int(number) * _UNITS_S[unit] for number, unit in parts)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no time at all: write 1s or more")
    if seconds > MAX_DURATION_S:
        most = _duration(MAX_DURATION_S)
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is too long: write up to {most}, or put the address on the deny list"
        )
    return seconds


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no header: write 'X-Forwarded-For: 203.0.113.9'")
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
            f"{quoted(text)} is no URL of an admin listener: write {DEFAULT_URL}, or unix:PATH"
        )
    return text


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line, as all other errors do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, printable(f"{self.prog}: {message}; see {self.prog} --help") + "\n")


def _options() -> _Parser:
    """What may stand before and after the name of a command. Without defaults: one would undo what stood before."""
    unset = argparse.SUPPRESS
    options = _Parser(add_help=False)
    admin_help = f"the relay's admin listener, or unix:PATH (default: {DEFAULT_URL})"
    options.add_argument("--admin", metavar="URL", default=unset, help=admin_help)
    options.add_argument("--json", action="store_true", default=unset, help="print the answer as JSON, errors too")
    return options


def _parser() -> _Parser:
    raw = argparse.RawDescriptionHelpFormatter
    everywhere = _options()
    parser = _Parser(
        prog="pyryrelay",
        description="Ask a running pyryrelay things, and tell it some. (twistd pyryrelay starts it.)",
        epilog=_EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
        parents=[everywhere],
    )
    parser.add_argument("--version", action="version", version=f"pyryrelay {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    jail = commands.add_parser("jail", help="who is locked out", epilog=_JAIL_EXAMPLES, formatter_class=raw)
    _add_jail(jail.add_subparsers(metavar="COMMAND", required=True), everywhere)
    reload_help = "read the configuration and the list files again"
    reload = commands.add_parser("reload", help=reload_help, parents=[everywhere])
    reload.set_defaults(run=_reload)
    whoami = commands.add_parser(
        "whoami",
        help="explain how a client address comes about",
        epilog=_WHOAMI_EXAMPLES,
        formatter_class=raw,
        parents=[everywhere],
    )
    whoami.add_argument("--peer", metavar="ADDRESS", help="who connects, or unix (default: this command)")
    whoami.add_argument(
        "--header", metavar="NAME:VALUE", type=_header, action="append", default=[], help="what it sends; repeatable"
    )
    whoami.set_defaults(run=_whoami)
    return parser


def _add_jail(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    listing = commands.add_parser("list", help="show who is locked out", parents=[everywhere])
    listing.set_defaults(run=_jail_list)
    add = commands.add_parser("add", help="lock a client out", parents=[everywhere])
    add.add_argument("address", metavar="ADDRESS")
    add.add_argument(
        "--for",
        dest="duration_s",
        metavar="TIME",
        type=_seconds,
        default=600.0,
        help="90s, 10m, 2h30m, 7d or seconds alone (default: 10m)",
    )
    add.set_defaults(run=_jail_add)
    release = commands.add_parser("release", help="let a client in again", parents=[everywhere])
    release.add_argument("address", metavar="ADDRESS")
    release.set_defaults(run=_jail_release)


_Run = Callable[[AdminClient, argparse.Namespace, _Output], None]


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run one command and return the exit code; a wrong command line raises `SystemExit` with code 2."""
    parser = _parser()
    asked = parser.parse_args(argv, argparse.Namespace(admin=None, json=False))
    variable = (os.environ if env is None else env).get(URL_VARIABLE)
    try:
        url = _admin_url(asked.admin or variable or DEFAULT_URL)
    except argparse.ArgumentTypeError as error:
        parser.error(f"{'argument --admin' if asked.admin else URL_VARIABLE}: {error}")
    run: _Run = asked.run
    try:
        run(AdminClient(url), asked, _Output(sys.stdout, asked.json))
        sys.stdout.flush()
    except CommandError as error:
        if asked.json:
            _Output(sys.stdout, as_json=True).json({"error": str(error)})
        else:
            sys.stderr.write(printable(f"pyryrelay: {error}") + "\n")
        return 1
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # Whoever read has read enough; the interpreter must not complain about it at its end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
