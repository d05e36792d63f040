"""``pyryrelay upgrade``: have a running relay start another process, which takes over its ports and its peers."""

from __future__ import annotations

import argparse
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import CommandError

__all__ = ["add"]

TIMEOUT_S: Final = 90.0
"""Longer than a new process may take to start."""

_EXAMPLES: Final = """\
examples:
  pip install --upgrade 'pyryrelay[all]' && pyryrelay upgrade
  pyryrelay upgrade || mail -s 'the old version still runs' admin

The new process has the command line and the environment of the old one, and reads the configuration anew. No
connection is refused meanwhile. Peers are closed with 1001 within --drain-over of the relay, and connect again. If the
new process cannot start, the old one goes on as if nothing had happened, and the exit code is 1.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "start another process on the same ports, and drain this one"
    upgrade = commands.add_parser("upgrade", help=text, epilog=_EXAMPLES, parents=[common])
    upgrade.set_defaults(run=_upgrade)


def _upgrade(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    body = client.request("POST", "/upgrade", timeout_s=TIMEOUT_S).body
    if output.as_json:
        output.json(body)
        return
    if not isinstance(body, dict) or not {"pid", "version", "drain_over_s"} <= body.keys():
        raise CommandError("the answer names no process: use the same version of pyryrelay as the relay")
    output.lines(
        [
            f"process {body['pid']}, version {body['version']}, has taken over; the old process moves its peers within "
            f"{body['drain_over_s']:g} s, and ends"
        ]
    )
