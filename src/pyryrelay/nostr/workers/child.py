"""The program of a child: ``python -m pyryrelay.nostr.workers.child writer|reader|verifier|exchange``.

Its descriptor 0 is a socket, at whose other end is the reactor's process. The child ends when that end is closed, which
also happens when the relay is killed, and not by the signals that end the relay: it has to work until the relay has
drained. What goes wrong is one line on standard error without content.

With ``shared`` behind its role, which the exchange always has and a writer may have, a child works for several workers,
which connect to the listening socket that is its descriptor 3; see `pyryrelay.nostr.workers.shared`.

Readers compute for as long as anybody asks, so they leave the processor to the relay's process and to the writer, and
have little of their answers wait between them and the relay: what waits there is before every later answer.

Only the modules of the child's role are imported, and no Twisted, so it is ready in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from pyryrelay.nostr.workers.channel import Channel, SendTogether, Worker, problem, serve

if TYPE_CHECKING:
    from pyryrelay.nostr.workers.shared.clients import Connected, SharedWorker

__all__ = ["main"]

ROLES: Final = (("writer",), ("reader",), ("verifier",), ("writer", "shared"), ("exchange", "shared"))
LISTENING: Final = 3
"""The descriptor of the socket where workers connect."""
READER_NICE: Final = 5
"""How much lower the priority of readers is. They still get a quarter of a processor that another process wants."""
READER_BUFFER_BYTES: Final = 64 * 1024
"""What the kernel is asked to buffer of a reader's answers: about one chunk of rows, which are `CHUNK_BYTES`."""
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def opener(role: str) -> Callable[[bytes, SendTogether], Worker]:
    """Return what opens the worker of a role, and import nothing else."""
    if role == "writer":
        from pyryrelay.nostr.workers.writer import open_writer

        return open_writer
    if role == "reader":
        from pyryrelay.nostr.workers.reader import open_reader

        return open_reader
    from pyryrelay.nostr.workers.verifier import open_verifier

    return open_verifier


def shared_maker(role: str) -> Callable[[Connected], SharedWorker]:
    """Return what makes the worker of a role that several workers share."""
    if role == "writer":
        from pyryrelay.nostr.workers.shared.writer import SharedWriter

        return SharedWriter
    from pyryrelay.nostr.workers.shared.exchange import Exchange

    return Exchange


def main(arguments: Sequence[str]) -> int:
    """Run a child until its end, and return its exit code."""
    if tuple(arguments) not in ROLES:
        sys.stderr.write("This program is started by the relay.\n")
        return 2
    role, *shared = arguments
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    name_process(role)
    end = socket.socket(fileno=0)
    if role == "reader":
        step_back(end)
    try:
        if shared:
            from pyryrelay.nostr.workers.shared.clients import serve_shared

            serve_shared(end, socket.socket(fileno=LISTENING), shared_maker(role))
        else:
            serve(Channel(end), opener(role))
    except Exception as error:
        sys.stderr.write(f"nostr {role}: {problem(error)}\n")
        return 1
    return 0


def step_back(end: socket.socket) -> None:
    """Lower the priority of this process, and bound what waits to be read at the other end of its socket."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, READER_BUFFER_BYTES)
    os.nice(READER_NICE)


def name_process(role: str) -> None:
    """Show the role in ``ps`` and ``top``, where that takes no more than writing to a file."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(f"nostr-{role}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
