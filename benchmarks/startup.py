"""CPU time from the start of a process until it listens, in seconds.

Each program is started with its files in the page cache, and its CPU time is read when its port listens. Ours is
``twistd pyryrelay`` with default options. It is compared with ``twistd web`` serving a directory, and plain Autobahn
without twistd.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from _rig import (
    AUTOBAHN,
    HOST,
    OURS,
    Row,
    Server,
    alternate,
    arguments,
    directory,
    free_port,
    publish,
    relay,
    rival,
    running,
)

WEB = "twistd web"


@contextmanager
def web() -> Iterator[Server]:
    """Run the web server of Twisted."""
    port = free_port()
    with directory() as where:
        command = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "web"]
        command += ["--listen", f"tcp:{port}:interface={HOST}", "--path", str(where)]
        with running(command, where, port) as server:
            yield server


def measure(start: Callable[[], AbstractContextManager[Server]]) -> float:
    """Start a program, and stop it when it listens."""
    with start() as server:
        return server.cpu_s()


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    rounds = options.rounds or (2 if options.quick else 9)
    contestants = {
        OURS: lambda: measure(lambda: relay(generous=False)),
        WEB: lambda: measure(web),
        AUTOBAHN: lambda: measure(lambda: rival("autobahn_deny")),
    }
    alternate(1, contestants)  # compiles modules, and fills caches
    results = alternate(rounds, contestants)
    publish([Row("start until it listens", "s of CPU", results, "at most 0.6", baseline=WEB)], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
