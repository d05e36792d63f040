"""``pyryrelay whoami``: explain which client a running relay sees behind a proxy."""

from __future__ import annotations

import argparse
from typing import Any, Final
from urllib.parse import urlencode

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.arguments import header
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import texts

__all__ = ["add"]

_EXAMPLES: Final = """\
examples:
  pyryrelay whoami                         explain this request
  pyryrelay whoami --peer 10.0.0.7 --header 'X-Forwarded-For: 203.0.113.9, 10.0.0.7'
  pyryrelay whoami --peer unix --header 'Forwarded: for=203.0.113.9'

The command changes nothing and spends no quota.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "explain how the client address is derived"
    whoami = commands.add_parser("whoami", help=text, epilog=_EXAMPLES, parents=[common])
    whoami.add_argument(
        "--peer", metavar="ADDRESS", help="the address that connects, or unix (default: that of this command)"
    )
    whoami.add_argument(
        "--header",
        metavar="NAME:VALUE",
        type=header,
        action="append",
        default=[],
        help="a header that it sends; repeatable",
    )
    whoami.set_defaults(run=_whoami)


def _whoami(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    parameters = [("peer", arguments.peer)] if arguments.peer else []
    parameters += [("header", line) for line in arguments.header]
    query = f"?{urlencode(parameters, encoding='latin-1')}" if parameters else ""
    body = client.request("GET", f"/whoami{query}").body
    if output.as_json:
        output.json(body)
    else:
        output.lines(texts(body, "steps"))
