"""The process that workers are forked from, from the inside: it has loaded all modules, has no reactor, and waits.

It reads requests from its supervisor, each with the three descriptors of a worker: its connection, its standard output,
and its standard error. A worker is a grandchild whose parent ends at once, so that its supervisor becomes its parent
(PR_SET_CHILD_SUBREAPER of Linux) and learns how it ends, whatever happens to this process.

Messages in both directions are JSON objects, each after its length in 4 bytes, big-endian.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pyryrelay.handover.descriptors import DescriptorError, receive_with_descriptors
from pyryrelay.runtime.process import why_not_started

__all__ = ["CONTROL", "DESCRIPTORS", "MODULE", "encoded", "serve_forks"]

MODULE: Final = "pyryrelay.start.fork_server"
"""The program that the process runs. Its arguments are the number of the supervisor and the words of twistd."""
CONTROL: Final = 3
"""The descriptor of the connection to the supervisor."""
DESCRIPTORS: Final = 3
"""How many a request has."""
MAX_BYTES: Final = 1024


def serve_forks(control: socket.socket) -> int | None:
    """Fork workers until the supervisor ends the connection, and return None then.

    In each worker, return its connection to the supervisor. Its output goes where the supervisor wants it.
    """
    control.settimeout(None)
    _say(control, {"type": "ready"})
    while True:
        try:
            body, descriptors = receive_with_descriptors(control, MAX_BYTES, lambda body: DESCRIPTORS)
        except DescriptorError:
            return None
        number = json.loads(body)["number"]
        try:
            pid = fork_orphan()
        except OSError as error:
            _say(control, {"type": "failed", "number": number, "problem": why_not_started(error)})
        else:
            if pid is None:
                return _become_worker(control, descriptors)
            _say(control, {"type": "forked", "number": number, "pid": pid})
        for descriptor in descriptors:
            os.close(descriptor)


def encoded(message: Mapping[str, object]) -> bytes:
    """Return the body of a message."""
    return json.dumps(message).encode()


def _say(control: socket.socket, message: Mapping[str, object]) -> None:
    body = encoded(message)
    with contextlib.suppress(OSError):  # the supervisor has ended, as the next read shows
        control.sendall(len(body).to_bytes(4, "big") + body)


def _become_worker(control: socket.socket, descriptors: Sequence[int]) -> int:
    connection, output, errors = descriptors
    control.close()
    for number, descriptor in ((1, output), (2, errors)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return connection


def fork_orphan(fork: Callable[[], int] = os.fork) -> int | None:
    """Fork a process that is nobody's child here, and return its number; None in that process. Raises `OSError`."""
    reading, writing = os.pipe()
    try:
        parent = fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if parent == 0:
        with contextlib.suppress(OSError):
            if (pid := fork()) == 0:
                os.close(reading)
                os.close(writing)
                return None
            os.write(writing, str(pid).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        found = pipe.read()
    # The worker has its new parent before this returns.
    os.waitpid(parent, 0)
    if not found:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return int(found)
