"""Processes of a relay, as the system shows them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that it has adopted."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))
    except OSError:
        return []


def workers_of(pid: int) -> list[int]:
    """Return the processes that serve for a supervisor: of its children, those that have many sockets."""
    return [child for child in children_of(pid) if _sockets(child) > 2]


def _sockets(pid: int) -> int:
    found = 0
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found += os.readlink(path).startswith("socket:")
    return found


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not collected does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
