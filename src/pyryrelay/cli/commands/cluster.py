"""``pyryrelay cluster``: the instances of a cluster, and which of them holds a key."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import CommandError, other_version

__all__ = ["add"]

_EXAMPLES: Final = """\
examples:
  pyryrelay cluster                        list the instances, and what each has to do
  pyryrelay cluster where my-server        which instance serves this key
  pyryrelay cluster --json | jq '.instances[] | select(.lease_s < 2)'

SPLICED are connections that an instance has accepted and passes on to others. If they are many, the balancer does not
send the peers of one key to one instance. An instance whose lease is over holds nothing.

exit codes: 0 success, 1 the relay is in no cluster, its server does not answer, or nobody holds the key
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "list the instances of the cluster, or find one"
    cluster = commands.add_parser("cluster", help=text, epilog=_EXAMPLES, parents=[common])
    cluster.add_argument("what", nargs="?", choices=("list", "where"), default="list", help="what to show")
    cluster.add_argument("key", nargs="?", metavar="KEY", help="the key to look for, with where")
    cluster.set_defaults(run=_cluster)


def _cluster(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    if (arguments.what == "where") != (arguments.key is not None):
        raise CommandError("write 'pyryrelay cluster where KEY', or 'pyryrelay cluster'")
    if arguments.key is not None:
        _where(client, arguments.key, output)
        return
    body = client.act("cluster", "instances")
    if not isinstance(body, dict) or "instances" not in body:
        raise other_version("has no instances")
    if output.as_json:
        output.json(body)
        return
    output.message(f"cluster {body['name']}, asked at {body['here']}")
    titles = ("INSTANCE", "LEASE", "KEYS", "CONNECTIONS", "SPLICED", "ARRIVED", "BOOT")
    output.table(titles, [_row(each) for each in body["instances"]])


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    lease = f"{found['lease_s']:.1f} s" if found["lease_s"] > 0 else "over"
    if not found["proven"]:
        lease = "not proven"
    return (
        str(found["address"]),
        lease,
        str(found["keys"]),
        str(found["connections"]),
        str(found["spliced"]),
        str(found["arrived"]),
        str(found["boot"]),
    )


def _where(client: AdminClient, key: str, output: Output) -> None:
    body = client.act("cluster", "where", json.dumps({"key": key}).encode("ascii"))
    if not isinstance(body, dict) or "address" not in body:
        raise other_version("finds nothing")
    if output.as_json:
        output.json(body)
    elif body["address"] is not None:
        output.lines([str(body["address"])])
    if body["address"] is None:
        raise CommandError(f"nobody holds {key!r}")
