"""``pyryrelay cluster``: the instances of a cluster, which of them holds a key, and moving keys to others."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import CommandError, UnknownPathError, other_version

__all__ = ["add"]

_MOST_S: Final = 86_400
_LOOK_S: Final = 1.0

_EXAMPLES: Final = """\
examples:
  pyryrelay cluster                        list the instances, and what each has to do
  pyryrelay cluster where my-server        which instance serves this key
  pyryrelay cluster --json | jq '.instances[] | select(.lease_s < 2)'
  pyryrelay cluster rebalance --dry-run    how many keys this relay has more than its share
  pyryrelay cluster rebalance --over 600   move them to other instances within 10 minutes

A key is the name by which peers find each other, such as my-server. KEYS are those that an instance holds. SPLICED are
connections that it has accepted and passes on to others, ARRIVED those that others pass on to it. If many are spliced,
the balancer does not send the peers of one key to one instance. LEASE is how long the instance still holds its keys if
it renews nothing; one whose lease is over holds nothing. BOOT changes when an instance is started again.

With rebalance, the peers of one key after the other are closed with 1001 and connect again through the balancer, which
chooses the instance. Run it on each relay that has too many keys after an instance was added. It goes on if the command
is ended; --stop ends it. In the result, KEYS are those that the instance still holds, MOVED those whose peers were
closed, BACK those of them that have come back to it.

exit codes: 0 success, 1 the relay is in no cluster, its server does not answer, or nobody holds the key
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "list the instances of the cluster, find one, or move keys to others"
    cluster = commands.add_parser("cluster", help=text, epilog=_EXAMPLES, parents=[common])
    kinds = ("list", "where", "rebalance")
    cluster.add_argument("what", nargs="?", choices=kinds, default="list", help="what to show, or to do")
    cluster.add_argument("key", nargs="?", metavar="KEY", help="the key to look for, with where")
    cluster.add_argument("--dry-run", action="store_true", help="with rebalance: say how many keys would move, only")
    cluster.add_argument(
        "--over", metavar="SECONDS", type=_seconds, help="with rebalance: the time to spread it over (default: 60)"
    )
    cluster.add_argument("--stop", action="store_true", help="with rebalance: move no more keys")
    cluster.set_defaults(run=_cluster)


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST_S):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {_MOST_S}")
    return float(text)


def _asked(client: AdminClient, action: str, body: object = None) -> Any:
    """Return the answer to an action of an instance."""
    try:
        return client.act("cluster", action, b"" if body is None else json.dumps(body).encode("ascii"))
    except UnknownPathError as error:
        if "no such action" in str(error):
            raise
        raise CommandError("this relay is no instance of a cluster: it was started without --cluster-listen") from None


def _cluster(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    if arguments.what == "rebalance":
        _rebalance(client, arguments, output)
        return
    if arguments.dry_run or arguments.stop or arguments.over is not None:
        raise CommandError("--dry-run, --over and --stop belong to 'pyryrelay cluster rebalance'")
    if (arguments.what == "where") != (arguments.key is not None):
        raise CommandError("write 'pyryrelay cluster where KEY', or 'pyryrelay cluster'")
    if arguments.key is not None:
        _where(client, arguments.key, output)
        return
    body = _asked(client, "instances")
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
    body = _asked(client, "where", {"key": key})
    if not isinstance(body, dict) or "address" not in body:
        raise other_version("finds nothing")
    if output.as_json:
        output.json(body)
    elif body["address"] is not None:
        output.lines([str(body["address"])])
    if body["address"] is None:
        raise CommandError(f"nobody holds {key!r}")


def _rebalance(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    if arguments.key is not None or (arguments.dry_run and arguments.stop):
        raise CommandError("write 'pyryrelay cluster rebalance', with --dry-run, --over SECONDS or --stop")
    over_s = 60.0 if arguments.over is None else arguments.over
    what = "plan" if arguments.dry_run else "stop" if arguments.stop else "start"
    rows = _act(client, what, over_s)
    if what == "start":
        _show_plan(rows, output)
        rows = _follow(client, rows, output)
    if output.as_json:
        output.json({"instances": rows})
    elif what == "plan":
        _show_plan(rows, output)
    else:
        output.table(("INSTANCE", "KEYS", "MOVED", "BACK"), [_moved(each) for each in rows])


def _act(client: AdminClient, what: str, over_s: float = 0.0) -> list[dict[str, Any]]:
    body = _asked(client, "rebalance", {"do": what, "over_s": over_s})
    if not isinstance(body, dict) or not isinstance(body.get("instances"), list):
        raise other_version("moves no keys")
    return list(body["instances"])


def _show_plan(rows: list[dict[str, Any]], output: Output) -> None:
    if output.as_json:
        return
    for each in rows:
        more = f", {each['astray']} of which the balancer sends elsewhere already" if each["planned"] else ""
        line = f"{each['address']}: {each['planned']} keys to move{more}; the share of each instance is {each['share']}"
        output.lines([line])


def _follow(client: AdminClient, rows: list[dict[str, Any]], output: Output) -> list[dict[str, Any]]:
    """Wait until all keys have moved, and say how far it is."""
    told = None
    try:
        while any(each["to_move"] for each in rows):
            left, moved = (sum(each[key] for each in rows) for key in ("to_move", "moved"))
            seconds = max(each["left_s"] for each in rows)
            if told != (left, moved):
                output.message(f"{moved} moved, {left} to move within {seconds:.0f} s")
            told = left, moved
            time.sleep(_LOOK_S)
            rows = _act(client, "look")
    except KeyboardInterrupt:
        raise CommandError("it goes on: 'pyryrelay cluster rebalance --stop' ends it") from None
    return rows


def _moved(found: dict[str, Any]) -> tuple[str, ...]:
    return str(found["address"]), str(found["keys"]), str(found["moved"]), str(found["back"])
