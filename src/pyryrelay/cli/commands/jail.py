"""``pyryrelay jail``: list, jail and release clients."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.arguments import jail_seconds
from pyryrelay.cli.figures import duration
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import other_version

__all__ = ["add"]

MAX_ENTRIES: Final = 10_000

_EXAMPLES: Final = """\
examples:
  pyryrelay jail list
  pyryrelay jail list | cut -f1            networks only
  pyryrelay jail add 192.0.2.7             jail a client for 10 minutes
  pyryrelay jail add 2001:db8::7 --for 2h30m
  pyryrelay jail release 192.0.2.7

An IPv6 address stands for its client: its /64, or what --ipv6-prefix of twistd pyryrelay says.
To block networks of more than one client, use the deny list (--deny of twistd pyryrelay).
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    jail = commands.add_parser("jail", help="show, jail and release clients", epilog=_EXAMPLES)
    subcommands = jail.add_subparsers(metavar="COMMAND", required=True)
    listing = subcommands.add_parser("list", help="show jailed clients", parents=[common])
    listing.set_defaults(run=_list)
    adding = subcommands.add_parser("add", help="jail a client", parents=[common])
    adding.add_argument("address", metavar="ADDRESS")
    adding.add_argument(
        "--for",
        dest="duration_s",
        metavar="TIME",
        type=jail_seconds,
        default=600.0,
        help="90s, 10m, 2h30m, 7d or a number of seconds (default: 10m)",
    )
    adding.set_defaults(run=_add)
    release = subcommands.add_parser("release", help="release a client", parents=[common])
    release.add_argument("address", metavar="ADDRESS")
    release.set_defaults(run=_release)


def _list(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    response = client.request("GET", f"/jail?limit={MAX_ENTRIES}")
    if output.as_json:
        output.json(response.body)
        return
    entries = sorted(_entries(response.body), key=lambda entry: -float(entry["seconds_left"]))
    if not entries:
        output.message("no client is jailed")
        return
    rows = [(str(e["network"]), duration(float(e["seconds_left"])), _times(e)) for e in entries]
    output.table(("NETWORK", "LEFT", "SENTENCES"), rows)
    if response.total is not None and response.total > len(entries):
        output.message(f"{response.total - len(entries)} more are not shown")


def _entries(body: Any) -> Sequence[Mapping[str, Any]]:
    """Return the entries of a listing. Raises `CommandError` for other data."""
    try:
        return [
            {
                "network": e["network"],
                "seconds_left": float(e["seconds_left"]),
                "times": int(e["times"]),
                "origin": str(e.get("origin", "")),
            }
            for e in body
        ]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise other_version("does not list jailed clients") from None


def _add(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    response = client.request("POST", "/jail", {"address": arguments.address, "seconds": arguments.duration_s})
    if output.as_json:
        output.json(response.body)
        return
    (entry,) = _entries([response.body])
    output.message(f"{entry['network']} is jailed for {duration(entry['seconds_left'])}")


def _release(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    response = client.request("DELETE", f"/jail/{quote(arguments.address, safe='')}")
    if output.as_json:
        output.json(response.body)
        return
    output.message(f"{arguments.address} is released")


def _times(entry: Mapping[str, Any]) -> str:
    """Return how many sentences in a row it was, and whose, if not this relay's."""
    times = str(entry["times"]) if entry["times"] else "by hand"
    return f"{times}, at {entry['origin']}" if entry["origin"] else times
