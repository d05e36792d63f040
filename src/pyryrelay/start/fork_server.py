"""The program that workers are forked from; see `pyryrelay.workers.starting.fork_server`.

It ends with its supervisor, also while it loads the modules, which takes most of a second.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from collections.abc import Sequence
from typing import Final

from pyryrelay.workers.starting.parents import end_with_parent

__all__ = ["LATER", "main"]

LATER: Final = ("twisted.internet.epollreactor", "twisted.internet.asyncioreactor")
"""Modules that workers load only when they run. None of them installs a reactor, or starts a thread."""


def main(words: Sequence[str]) -> int:
    """Serve the process whose number is the first word; the others are those of twistd. Return the exit code."""
    parent = int(words[0])
    end_with_parent(parent)
    from pyryrelay.start.run import main_of_twistd
    from pyryrelay.workers.starting.fork_server import CONTROL, serve_forks
    from pyryrelay.workers.starting.greeting import VARIABLE

    for name in LATER:
        importlib.import_module(name)
    gc.collect()
    # What is in memory now stays as it is, so that workers share it.
    gc.freeze()
    connection = serve_forks(socket.socket(fileno=CONTROL))
    if connection is None:
        return 0
    os.environ[VARIABLE] = f"{parent}:{connection}"
    return main_of_twistd(words[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
