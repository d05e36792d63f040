"""``pyryrelay explain``: ask a running relay whether it would admit a client, and why not."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
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
  pyryrelay explain npub1...               a public key of Nostr, also as 64 hex digits
  pyryrelay explain 192.0.2.7 --json | jq -r .verdict

The command changes nothing and spends no quota. Behind a proxy, `pyryrelay whoami` tells which address to ask about.
Rules of a protocol begin with its name; what it refuses to an admitted client does not change the verdict. Quotas of
single connections are in the log.

exit codes: 0 the client would be admitted, or no rule refuses the key; 1 otherwise, or the relay could not be asked
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "explain whether a client is admitted, and why not"
    explain = commands.add_parser("explain", help=text, epilog=_EXAMPLES, parents=[common])
    explain.add_argument(
        "address", metavar="ADDRESS", help="the address of a client, as it is in the log, or a public key of Nostr"
    )
    explain.set_defaults(run=_explain)


def _explain(client: AdminClient, arguments: argparse.Namespace, output: Output) -> int:
    body = client.request("GET", f"/explain?{urlencode({'address': arguments.address})}").body
    try:
        verdict, headlines = str(body["verdict"]), [*_headlines(body)]
        rows = [(_MARKS[step["state"]], str(step["what"]), str(step["detail"])) for step in body["steps"]]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise other_version("does not explain a client") from None
    if output.as_json:
        output.json(body)
    else:
        output.lines(headlines)
        output.table(("", "RULE", "STATE"), rows)
    return 1 if verdict in REFUSING else 0


def _headlines(body: Any) -> Iterator[str]:
    """Return the verdict, what protocols refuse, and what the operator can do, as far as the relay says so."""
    yield f"{body['name']} would now be {body['verdict']}" if "name" in body else _headline(body)
    yield from _advice(body)
    for protocol, found in body.get("protocols", {}).items():
        for rule in found["rules"]:
            if rule["state"] == "refuses":
                yield f"{protocol} would now refuse by this rule: {rule['what']}"
                yield from _advice(rule)


def _advice(found: Any) -> list[str]:
    """Return what the operator can do, which relays of earlier releases do not say."""
    text = found.get("advice")
    return [f"what to do: {text}"] if isinstance(text, str) else []


_MARKS: Final = {"ok": "ok", "refuses": "REFUSES", "info": ""}


def _headline(body: Any) -> str:
    reason, wait_s = body["reason"], body["retry_after_s"]
    line = f"{body['address']} ({body['network']}) would now be {body['verdict']}"
    if body["verdict"] == "exempt":
        line = f"{body['address']} ({body['network']}) would now be admitted: it is exempt"
    line += f": {reason}" if reason else ""
    return line if wait_s is None else f"{line}; it should try again in {duration(float(wait_s))}"
