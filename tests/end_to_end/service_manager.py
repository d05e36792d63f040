"""A service manager, as systemd is one: it passes a relay its listening socket, and is told what becomes of it."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
from collections.abc import Iterator

from tests.end_to_end.generations import Start
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, Launch

PASSING = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="relay.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does: the socket is descriptor 3, and the variables name the process that executes the program."""


@contextlib.contextmanager
def passed_socket(backlog: int = 128) -> Iterator[tuple[int, Launch]]:
    """Yield the port of a listening socket, and how a relay is started that this is passed to."""
    with socket.create_server((LOCALHOST, 0), backlog=backlog) as passed:
        prefix = [sys.executable, "-c", PASSING, str(passed.fileno())]
        yield passed.getsockname()[1], Launch(["systemd:domain=INET:index=0"], prefix, [passed.fileno()])


@contextlib.contextmanager
def notified() -> Iterator[tuple[socket.socket, Launch]]:
    """Yield a socket that hears what a service manager is told, and how a relay is started that tells it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{name}/notify")
        manager.settimeout(DEADLINE_S)
        yield manager, Launch(environment={"NOTIFY_SOCKET": f"{name}/notify"})


def assert_main_process_is_told(start: Start) -> None:
    """Check what is told in an upgrade: READY and MAINPID, and STOPPING only by the last process."""
    with notified() as (manager, launch):
        relay = start(launch=launch)
        assert manager.recv(100) == b"READY=1"
        relay.upgrade()
        relay.has_moved()
        assert [manager.recv(100), manager.recv(100)] == [f"MAINPID={relay.pid}".encode(), b"READY=1"]
        relay.stop()
        assert manager.recv(100) == b"STOPPING=1"
