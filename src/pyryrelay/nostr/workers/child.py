"""The program of a child: ``python -m pyryrelay.nostr.workers.child writer|reader|verifier``.

Its descriptor 0 is a socket, at whose other end is the reactor's process. The child ends when that end is closed, which
also happens when the relay is killed, and not by the signals that end the relay: it has to work until the relay has
drained. What goes wrong is one line on standard error without content.

Only the modules of the child's role are imported, and no Twisted, so it is ready in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

from pyryrelay.nostr.workers.channel import Channel, Send, Worker, problem, serve

__all__ = ["main"]

ROLES: Final = ("writer", "reader", "verifier")
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def opener(role: str) -> Callable[[bytes, Send], Worker]:
    """Return what opens the worker of a role, and import nothing else."""
    if role == "writer":
        from pyryrelay.nostr.workers.writer import open_writer

        return open_writer
    if role == "reader":
        from pyryrelay.nostr.workers.reader import open_reader

        return open_reader
    from pyryrelay.nostr.workers.verifier import open_verifier

    return open_verifier


def main(arguments: Sequence[str]) -> int:
    """Run a child until its end, and return its exit code."""
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.stderr.write("This program is started by the relay.\n")
        return 2
    (role,) = arguments
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    name_process(role)
    try:
        serve(Channel(socket.socket(fileno=0)), opener(role))
    except Exception as error:
        sys.stderr.write(f"nostr {role}: {problem(error)}\n")
        return 1
    return 0


def name_process(role: str) -> None:
    """Show the role in ``ps`` and ``top``, where that takes no more than writing to a file."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(f"nostr-{role}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
