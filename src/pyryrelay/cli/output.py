"""Output to a pipe whose reader may close it."""

from __future__ import annotations

import os
import sys

__all__ = ["discard_output", "write"]


def write(text: str) -> None:
    """Write to standard output, and discard everything from then on if the reader has closed the pipe."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """Discard standard output, so that the interpreter does not fail to flush it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
