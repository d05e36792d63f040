"""``pyryrelay explain``: ask a running relay whether it would admit a client, and why not."""

from __future__ import annotations

import argparse
from typing import Any, Final
from urllib.parse import urlencode

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.figures import duration
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import other_version

__all__ = ["add"]

REFUSING: Final = ("refused", "jailed", "denied")

_EXAMPLES: Final = """\
examples:
  pyryrelay explain 192.0.2.7              its quotas, caps, lists, and the jail
  pyryrelay explain 2001:db8::7            an IPv6 address stands for its client
  pyryrelay explain 192.0.2.7 --json | jq -r .verdict

The command changes nothing and spends no quota. Behind a proxy, `pyryrelay whoami` tells which address to ask about.
Quotas of single connections, and what protocols refuse for reasons of their own, are in the log.

exit codes: 0 the client would be admitted, 1 it would be refused, or the relay could not be asked
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "explain whether a client is admitted, and why not"
    explain = commands.add_parser("explain", help=text, epilog=_EXAMPLES, parents=[common])
    explain.add_argument("address", metavar="ADDRESS", help="the address of a client, as it is in the log")
    explain.set_defaults(run=_explain)


def _explain(client: AdminClient, arguments: argparse.Namespace, output: Output) -> int:
    body = client.request("GET", f"/explain?{urlencode({'address': arguments.address})}").body
    try:
        verdict, headline = str(body["verdict"]), _headline(body)
        rows = [(_MARKS[step["state"]], str(step["what"]), str(step["detail"])) for step in body["steps"]]
    except (TypeError, KeyError, ValueError):
        raise other_version("does not explain a client") from None
    if output.as_json:
        output.json(body)
    else:
        output.lines([headline, *_advice(body)])
        output.table(("", "RULE", "STATE"), rows)
    return 1 if verdict in REFUSING else 0


def _advice(body: Any) -> list[str]:
    """Return what the operator can do, which relays of earlier releases do not say."""
    text = body.get("advice")
    return [f"what to do: {text}"] if isinstance(text, str) else []


_MARKS: Final = {"ok": "ok", "refuses": "REFUSES", "info": ""}


def _headline(body: Any) -> str:
    reason, wait_s = body["reason"], body["retry_after_s"]
    line = f"{body['address']} ({body['network']}) would now be {body['verdict']}"
    if body["verdict"] == "exempt":
        line = f"{body['address']} ({body['network']}) would now be admitted: it is exempt"
    line += f": {reason}" if reason else ""
    return line if wait_s is None else f"{line}; it should try again in {duration(float(wait_s))}"
