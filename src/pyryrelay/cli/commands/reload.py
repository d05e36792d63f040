"""``pyryrelay reload``: have a running relay read its configuration again."""

from __future__ import annotations

import argparse
from typing import Any, Final

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.output import Output
from pyryrelay.cli.protocol_commands import texts

__all__ = ["add"]

_EXAMPLES: Final = """\
examples:
  pyryrelay reload                         apply the configuration, and list the settings that changed
  pyryrelay reload || mail -s 'bad configuration' admin

Nothing changes if there is an error. No client is disconnected.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "read the configuration and the list files again"
    reload = commands.add_parser("reload", help=text, epilog=_EXAMPLES, parents=[common])
    reload.set_defaults(run=_reload)


def _reload(client: AdminClient, arguments: argparse.Namespace, output: Output) -> None:
    body = client.request("POST", "/reload").body
    if output.as_json:
        output.json(body)
        return
    changed, restart = (texts(body, key) for key in ("changed", "needs_restart"))
    if not changed and not restart:
        output.message("nothing has changed")
        return
    output.table(("SETTING", "NOW"), [*((n, "changed") for n in changed), *((n, "needs a restart") for n in restart)])
