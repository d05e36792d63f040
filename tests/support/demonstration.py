"""Running a demonstration as a reader of the documentation does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
DEADLINE_S = 120.0
"""Longer than a demonstration's own timeout, which is the one to end it."""


def passes(program: str, patterns: Iterable[str], **environment: str) -> None:
    """Run a demonstration, which must pass in plain text, and print a line for each of these patterns."""
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "FAILED" not in done.stdout
    for pattern in patterns:
        assert re.search(rf"^{pattern}$", done.stdout, re.MULTILINE), (pattern, done.stdout)
