"""``pyryrelay cluster``: the servers and instances of a cluster, what is wrong with them, and moving keys to others."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.figures import duration
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import CommandError, UnknownPathError, other_version

__all__ = ["add"]

_MOST_S: Final = 86_400
_LOOK_S: Final = 1.0
_OLD_S: Final = 10.0
_TITLES: Final = ("INSTANCE", "STATE", "SEEN", "KEYS", "CONNECTIONS", "SPLICED", "ARRIVED", "BOOT")

_EXAMPLES: Final = """\
examples:
  pyryrelay cluster                        servers, instances, and what is wrong with them
  pyryrelay cluster where my-server        which instance serves this key
  pyryrelay cluster --json | jq '.instances[] | select(.state == "over")'
  pyryrelay cluster --json | jq -r '.problems[] | .text + ": " + .next'
  pyryrelay cluster rebalance --dry-run    how many keys this relay has more than its share
  pyryrelay cluster rebalance --over 600   move them to other instances within 10 minutes

A key is the name by which peers find each other, such as my-server. KEYS are those that an instance holds, or held
when it was seen last. SPLICED are connections that it has accepted and passes on to others, ARRIVED those that others
pass on to it. If many are spliced, the balancer does not send the peers of one key to one instance. BOOT changes when
an instance is started again. Each instance says every 2 s that it is there; SEEN is how long ago that was. STATE is
up, left (it has moved its peers and ended), or gone: it has died or hangs, or cannot reach the server. Those that have
left are listed for an hour, the others that are gone for a day.

In a pipe, there is one row for each instance, and no more. With --json, servers, instances and problems are objects.

With rebalance, the peers of one key after the other are closed with 1001 and connect again through the balancer, which
chooses the instance. Run it on each relay that has too many keys after an instance was added. It goes on if the command
is ended; --stop ends it. In the result, KEYS are those that the instance still holds, MOVED those whose peers were
closed, BACK those of them that have come back to it.

exit codes: 0 success, 1 the relay is in no cluster, a server of it cannot be used, or nobody holds the key
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "show the cluster and what is wrong with it, find an instance, or move keys to others"
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
        if "/cluster/where" in str(error):
            raise
        if "/cluster/instances" in str(error):
            text = "this relay is no instance of its cluster: it was started without --cluster-listen"
            raise CommandError(text) from None
        raise CommandError("this relay is in no cluster: it was started without --cluster") from None


def _cluster(client: AdminClient, arguments: argparse.Namespace, output: Output) -> int | None:
    if arguments.what == "rebalance":
        _rebalance(client, arguments, output)
        return None
    if arguments.dry_run or arguments.stop or arguments.over is not None:
        raise CommandError("--dry-run, --over and --stop belong to 'pyryrelay cluster rebalance'")
    if (arguments.what == "where") != (arguments.key is not None):
        raise CommandError("write 'pyryrelay cluster where KEY', or 'pyryrelay cluster'")
    if arguments.key is not None:
        _where(client, arguments.key, output)
        return None
    return _show(_asked(client, "instances"), output)


def _show(body: Any, output: Output) -> int | None:
    """Show servers, instances and problems."""
    if not isinstance(body, dict) or not {"instances", "servers", "problems"} <= body.keys():
        raise other_version("does not show the cluster")
    away = [problem for problem in body["problems"] if problem["kind"] == "server_away"]
    if output.as_json:
        output.json(body)
        return 1 if away else None
    if output.is_terminal:
        _show_servers(body, output)
    instances = [_row(each) for each in body["instances"] or ()]
    if instances:
        output.message("")
        output.table(_TITLES, instances)
    for problem in body["problems"] if output.is_terminal else ():
        since = "" if problem["since_s"] is None else f"for {duration(problem['since_s'])}: "
        output.lines(["", f"{since}{problem['text']}", f"  -> {problem['next']}"])
    if away:
        what = (
            f"server {each['name']} of the cluster cannot be used, for {duration(each['since_s'])}" for each in away
        )
        raise CommandError("; ".join(what))
    return None


def _show_servers(body: dict[str, Any], output: Output) -> None:
    here = ", ".join(body["here"])
    output.lines([f"cluster {body['name']}, " + (f"asked at {here}" if here else "of which this relay is no instance")])
    output.table(("SERVER", "STATE"), [row for server in body["servers"] for row in _of_server(server)])
    is_away = any(server["problem"] for server in body["servers"])
    if body["instances"] is not None and (is_away or body["listed_s"] > _OLD_S):
        output.lines(["", f"instances as they were {duration(body['listed_s'])} ago:"])


def _of_server(server: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a row for a server, and one for each of its sentinels."""
    name, place = str(server["name"]), str(server["address"])
    if server["sentinels"]:
        name = name.partition("@")[0]
    at = f" at {place}" if place not in ("", name) else ""
    if server["problem"]:
        yield name, f"cannot be used, for {duration(server['away_s'])}: {server['problem']}"
    else:
        yield name, f"in use{at}, for {duration(server['used_s'])}"
    for sentinel in server["sentinels"]:
        state = f"does not answer, for {duration(sentinel['away_s'])}: {sentinel['problem']}"
        if not sentinel["problem"]:
            state = f"answers: {sentinel['primary']} is the primary" if sentinel["primary"] else "not asked yet"
        yield f"sentinel {sentinel['name']}", state


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(found["address"]),
        _state(found),
        f"{found['renewed_s']:.1f} s ago" if found["renewed_s"] < 60 else f"{duration(found['renewed_s'])} ago",
        str(found["keys"]),
        str(found["connections"]),
        str(found["spliced"]),
        str(found["arrived"]),
        str(found["boot"]),
    )


def _state(found: dict[str, Any]) -> str:
    if not found["proven"]:
        return "not proven"
    if found["state"] == "up":
        return "up" if found["link"] is None else "up, unreachable"
    return "left" if found["state"] == "left" else "gone"


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
