"""The `pyryrelay` command, run as an operator does, and settings in a file that changes while a relay runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.end_to_end.harness import LOCALHOST, Relay, run


def pyryrelay(relay: Relay, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command against the relay's admin listener, whatever its exit code."""
    admin = f"http://{LOCALHOST}:{relay.admin_port}"
    return run(sys.executable, "-m", "pyryrelay.cli.command", "--admin", admin, *arguments)


def told(relay: Relay, *arguments: str) -> list[str]:
    """Return the lines that the command prints when it succeeds."""
    outcome = pyryrelay(relay, *arguments)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    return outcome.stdout.splitlines()


def jailed(relay: Relay) -> list[str]:
    """Return the jailed networks that the command lists, in the order of their text."""
    return sorted(line.split("\t")[0] for line in told(relay, "jail", "list"))


def write_settings(path: Path, settings: Mapping[str, object]) -> Path:
    """Write a TOML file of texts, numbers, switches and lists."""
    lines = [f"{name} = {_value(value)}\n" for name, value in settings.items()]
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(lines), encoding="utf-8")
    return fresh.replace(path)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
