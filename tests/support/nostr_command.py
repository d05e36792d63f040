"""The command ``pyryrelay nostr`` in a process of its own, beside a running relay."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, ROOT, environment

ENTRY_POINT: Final = "pyryrelay.nostr.tools.command:add"
# The entry points of the installation need not be those of this tree.
_PROGRAM: Final = f"""\
import importlib.metadata, sys
from pyryrelay.cli.command import main
importlib.metadata.entry_points = lambda group: [importlib.metadata.EntryPoint("nostr", {ENTRY_POINT!r}, group)]
sys.exit(main())
"""


def nostr(admin_port: int, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command against a relay, as an operator does, and return its result, whatever it is."""
    assert f'"nostr = {ENTRY_POINT}"' in (ROOT / "setup.py").read_text(encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, "nostr", *words, "--admin", f"http://{LOCALHOST}:{admin_port}"],
        input=stdin,
        capture_output=True,
        env=environment(),
        timeout=DEADLINE_S,
        check=False,
    )
