"""The terminal of a live command: what it can do, and the keys that are pressed."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

__all__ = ["can_redraw", "keys"]


def can_redraw(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Tell whether a screen can be drawn over and over again on ``stream``."""
    return stream.isatty() and env.get("TERM", "") not in ("", "dumb", "unknown")


@contextlib.contextmanager
def keys(stream: TextIO | None = None) -> Iterator[Callable[[float], str]]:
    """Read keys without waiting for the end of a line, and without showing them, in a ``with`` statement.

    The function waits for a number of seconds, and returns the keys that were pressed by then. It only waits if the
    stream, by default standard input, is not a terminal. The terminal is as before afterwards, whatever happens.
    """
    stream = sys.stdin if stream is None else stream
    if not stream.isatty():
        yield _no_keys
        return
    import termios
    import tty

    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(wait_s: float) -> str:
        if not select.select([descriptor], [], [], wait_s)[0]:
            return ""
        found = os.read(descriptor, 64)
        if not found:
            # The terminal is gone, and would be readable for ever.
            time.sleep(wait_s)
        return found.decode("ascii", "replace")

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _no_keys(wait_s: float) -> str:
    time.sleep(wait_s)
    return ""
