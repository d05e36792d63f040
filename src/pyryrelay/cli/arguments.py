"""The parser of the command ``pyryrelay``, and the types of its arguments. Times are seconds."""

from __future__ import annotations

import argparse
import re
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from pyryrelay.cli.figures import UNITS_S, duration
from pyryrelay.guard.jail import MAX_DURATION_S
from pyryrelay.text import printable, quoted

__all__ = [
    "DEFAULT_URL",
    "TOKEN_VARIABLE",
    "UNIX",
    "URL_VARIABLE",
    "Parser",
    "admin_url",
    "common_options",
    "header",
    "jail_seconds",
    "positive_seconds",
]

DEFAULT_URL: Final = "http://127.0.0.1:9090"
URL_VARIABLE: Final = "PYRYRELAY_ADMIN_URL"
TOKEN_VARIABLE: Final = "PYRYRELAY_ADMIN_TOKEN_FILE"
UNIX: Final = "unix:"
LONGEST_S: Final = 3_600.0

_DURATION: Final = re.compile(r"(?:\d{1,9}[smhd]){1,4}|\d{1,9}", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]+:[ -~]*")


class Parser(argparse.ArgumentParser):
    """Report a wrong command line in one line, like all other errors. Options cannot be abbreviated."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        self.exit(2, printable(f"{self.prog}: {message}; see {self.prog} --help") + "\n")


def common_options() -> Parser:
    """Return the options that may stand before and after the name of a command.

    They have no defaults: argparse would let the default of the second place override a value from the first.
    """
    unset = argparse.SUPPRESS
    options = Parser(add_help=False)
    admin_help = f"the relay's admin listener, or unix:PATH (default: {URL_VARIABLE}, or {DEFAULT_URL})"
    options.add_argument("--admin", metavar="URL", default=unset, help=admin_help)
    token_help = f"the file with the token of the admin listener, if it asks for one (default: {TOKEN_VARIABLE})"
    options.add_argument("--admin-token-file", metavar="FILE", default=unset, help=token_help)
    options.add_argument("--json", action="store_true", default=unset, help="print results and errors as JSON")
    return options


def jail_seconds(text: str) -> float:
    """Return the seconds of a duration for which a client can be jailed."""
    if not _DURATION.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is not a duration: write 90s, 10m, 2h30m, 7d, or a number of seconds"
        )
    parts = [(text, "s")] if text.isdigit() else re.findall(r"(\d+)([smhd])", text)
    seconds = sum(int(number) * UNITS_S[unit] for number, unit in parts)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is zero: write 1s or more")
    if seconds > MAX_DURATION_S:
        most = duration(MAX_DURATION_S)
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is too long: write up to {most}, or put the address on the deny list"
        )
    return seconds


def positive_seconds(text: str) -> float:
    """Return a number of seconds, above 0 and up to an hour."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    # What is not a number is not between the two either.
    if not 0 < seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is not a number of seconds: write one above 0, up to {LONGEST_S:.0f}"
        )
    return seconds


def header(text: str) -> str:
    """Return a header line."""
    if not _HEADER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a header: write 'X-Forwarded-For: 203.0.113.9'")
    return text


def admin_url(text: str) -> str:
    """Return the URL of an admin listener."""
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
