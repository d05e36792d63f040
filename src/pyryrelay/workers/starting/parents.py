"""Which process is whose parent, and what that means when one of them ends (prctl(2) of Linux).

This is imported before anything that takes long, so it imports nothing of Twisted's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

__all__ = ["adopt_orphans", "end_with_parent"]

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36


def end_with_parent(parent: int) -> None:
    """Have the system end this process with its parent, of that number. Raises `SystemExit` if it has ended already.

    The children of this process are not concerned. Without Linux nothing happens.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Behind the call, as it has no effect for a parent that ended before.
    if os.getppid() != parent:
        raise SystemExit(0)


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent ends; return whether the system can (Linux 3.4).

    They have to be collected; see `pyryrelay.runtime.twisted_internals.collect_orphans`.
    """
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> bool:
    """Change something about this process; return whether the system can."""
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) == 0)
