"""The program of the child process: ``python -m pyryrelay.acme.child`` takes one `Request`, and ends.

Descriptor 0 is the socket of `pyryrelay.runtime.child_process`. Blocking is fine here. The relay kills a child that
works too long; the memory of the process is limited here, because the authority decides how long its answers are.
"""

from __future__ import annotations

import resource
import socket
import sys
from typing import Final

from pyryrelay.acme import ordering
from pyryrelay.acme.wire import Answered, AskWindow, Challenge, Failed, Reply, encode, read_request

__all__ = ["MAX_MEMORY_BYTES", "main", "serve"]

MAX_MEMORY_BYTES: Final = 256 * 1024 * 1024
"""How much memory the process may allocate. An order takes about 40 MiB."""


class GoneError(Exception):
    """The relay has closed the socket."""


class Frames:
    """Frames over a blocking socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def receive(self) -> bytes:
        """Return the body of the next frame. Raises `GoneError`."""
        return self._exactly(int.from_bytes(self._exactly(4), "big"))

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise GoneError
            data += chunk
        return bytes(data)

    def send(self, message: Reply) -> None:
        """Send a frame."""
        body = encode(message)
        self._socket.sendall(len(body).to_bytes(4, "big") + body)


def serve(frames: Frames) -> None:
    """Do what the relay asks for. Raises `GoneError`."""
    request = read_request(frames.receive())

    def answer(challenge: Challenge) -> None:
        frames.send(challenge)
        frames.receive()

    try:
        if isinstance(request, Answered):
            raise ordering.OrderError("the relay sent an answer to nothing")
        if isinstance(request, AskWindow):
            frames.send(ordering.ask_window(request))
        else:
            frames.send(ordering.order(request, answer))
    except ordering.OrderError as error:
        frames.send(Failed(str(error), error.account))


def main() -> int:
    """Serve one request on descriptor 0, and return the exit code."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with socket.socket(fileno=0) as end:
        end.setblocking(True)
        try:
            serve(Frames(end))
        except (GoneError, OSError):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
