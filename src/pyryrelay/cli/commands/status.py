"""``pyryrelay status``: what a running relay does, on one page."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.figures import flat, headline, overview
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import CommandError, other_version
from pyryrelay.cli.worker_rows import WORKER_TITLES, worker_rows, workers_ready

__all__ = ["add", "status_of"]

_EXAMPLES: Final = """\
examples:
  pyryrelay status                         connections, refusals, traffic, limits in force
  pyryrelay status | grep ^refused         in a pipe: one figure a line, its name and its value
  pyryrelay status --json | jq .connections
  pyryrelay status --json | jq '.workers[] | select(.state != "running")'
  */5 * * * * pyryrelay status >/dev/null  in a crontab: mail if the relay cannot be reached, or is about to stop

`pyryrelay top` shows the same live, per second. docs/reference/admin-api.md describes every figure.

exit codes: 0 the relay runs, 1 it is about to stop, or could not be reached
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    status = commands.add_parser(
        "status", help="show connections, refusals and limits in force", epilog=_EXAMPLES, parents=[common]
    )
    status.set_defaults(run=_status)


def status_of(client: AdminClient) -> Mapping[str, Any]:
    """Return the figures of a relay. Raises `CommandError`."""
    body = client.request("GET", "/status").body
    if not isinstance(body, dict) or "state" not in body:
        raise other_version("has no figures")
    return body


def _status(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    body = status_of(client)
    if output.as_json:
        output.json(body)
    elif not output.is_terminal:
        output.table(("FIGURE", "VALUE"), [*flat(body)])
    else:
        output.lines([headline(body) + workers_ready(body)])
        if rows := worker_rows(body):
            output.lines([""])
            output.table(WORKER_TITLES, rows)
        for section in overview(body, time.time()):
            output.lines(["", section.title.upper()])
            width = max((len(row.name) for row in section.rows), default=0)
            output.lines([f"  {row.name:<{width}}  {row.value}" for row in section.rows])
    if body["state"] != "running":
        raise CommandError(f"the relay is {body['state']}: it accepts no more clients")
