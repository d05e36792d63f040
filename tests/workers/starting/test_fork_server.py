"""The process that workers are forked from, from the inside."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyryrelay.handover.descriptors import send_with_descriptors
from pyryrelay.workers.starting.fork_server import encoded, fork_orphan

PROGRAM = """
import os, signal, socket, sys
from pyryrelay.workers.starting.fork_server import serve_forks
connection = serve_forks(socket.socket(fileno=3))
if connection is None:
    sys.exit(7)
print("output", signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
os.write(2, b"errors")
os.write(connection, str(sorted(map(int, os.listdir("/proc/self/fd")))).encode())
"""


class Server:
    """The process, and our end of the connection to it."""

    def __init__(self) -> None:
        self.end, theirs = socket.socketpair()
        launcher = f"import os; os.dup2({theirs.fileno()}, 3); os.close({theirs.fileno()}); exec({PROGRAM!r})"
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.process = subprocess.Popen(
            [sys.executable, "-c", launcher], pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        self.end.settimeout(20)

    def hear(self) -> Any:
        """Return the next message."""
        length = int.from_bytes(self.end.recv(4, socket.MSG_WAITALL), "big")
        return json.loads(self.end.recv(length, socket.MSG_WAITALL))

    def stop(self) -> int:
        """End the connection, and return the exit code."""
        self.end.close()
        return self.process.wait(20)


@pytest.fixture
def server() -> Iterator[Server]:
    """A process that is ready."""
    made = Server()
    assert made.hear() == {"type": "ready"}
    yield made
    made.stop()


def test_a_worker(server: Server) -> None:
    """It has its own connection and output, gets SIGTERM, and is no child of the process."""
    ours, theirs = socket.socketpair()
    output, errors = os.pipe(), os.pipe()
    with ours, theirs:
        send_with_descriptors(server.end, encoded({"number": 5}), [theirs.fileno(), output[1], errors[1]])
        answer = server.hear()
        assert (answer["type"], answer["number"]) == ("forked", 5)
        assert answer["pid"] != server.process.pid
        for descriptor in (output[1], errors[1]):
            os.close(descriptor)
        ours.settimeout(20)
        open_files = json.loads(ours.recv(100))
    with open(output[0], "rb") as text, open(errors[0], "rb") as error:
        assert (text.read(), error.read()) == (b"output False\n", b"errors")
    # Three, its connection, and that of the folder which is read.
    assert len(open_files) <= 6
    assert server.stop() == 7


def test_the_end(server: Server) -> None:
    """It ends with the connection."""
    assert server.stop() == 7


def no_fork() -> int:
    """Refuse."""
    raise OSError(errno.EAGAIN, "no room")


def only_here(here: int) -> Callable[[], int]:
    """Return what forks in one process only."""
    return lambda: os.fork() if os.getpid() == here else no_fork()


@pytest.mark.parametrize("fork", [no_fork, only_here(os.getpid())])
def test_no_room_for_another_process(fork: Callable[[], int]) -> None:
    """The system may refuse either of both forks; nothing is left."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"no room|temporarily unavailable"):
        fork_orphan(fork)
    assert os.listdir("/proc/self/fd") == before
