"""Another user, without privileges, for tests that run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from typing import Final

import pytest

__all__ = ["AS_NOBODY", "NOBODY", "needs_nobody", "needs_python_of_nobody"]

NOBODY: Final = pwd.getpwnam("nobody")
AS_NOBODY: Final = ("setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")
"""Put before a command, it runs that as `NOBODY`."""
_SHELL: Final = ("sh", "-c", 'exec "$@"', "sh")


def _can_run_python(*starter: str) -> bool:
    if os.geteuid() != 0 or shutil.which(AS_NOBODY[0]) is None:
        return False
    words = [*AS_NOBODY, *starter, sys.executable, "-c", "import email.policy"]
    return not subprocess.run(words, capture_output=True, check=False).returncode


needs_nobody = pytest.mark.skipif(
    not _can_run_python(), reason="needs root, setpriv of util-linux, and a Python that other users can run"
)
"""Skips a test where this Python cannot be run as `NOBODY`."""
needs_python_of_nobody = pytest.mark.skipif(
    not _can_run_python(*_SHELL), reason="needs root, setpriv of util-linux, and a Python that other users can start"
)
"""Skips a test where a process of `NOBODY` cannot start this Python.

setpriv can where its users cannot: the program that takes its place is looked up with the privileges of root.
"""
