"""A Redis server of the tests' own, and a client that waits for each answer."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.redis_server import PROGRAM

START_S = 30.0

needs_resp_server = pytest.mark.skipif(PROGRAM is None, reason="needs redis-server")


class RespClient:
    """One connection, with one command at a time. An error that the server answers is raised as `ValueError`."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            self._sock.connect(path)
        except OSError:
            self._sock.close()
            raise
        self._file = self._sock.makefile("rb")

    def __call__(self, *words: object) -> Any:
        """Send a command and return its answer; bulk strings are text."""
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            raw = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
        self._sock.sendall(b"".join(parts))
        return self._read()

    def script(self, text: str, keys: Sequence[object], args: Sequence[object]) -> Any:
        """Run a script."""
        return self("EVAL", text, len(keys), *keys, *args)

    def _read(self) -> Any:
        line = self._file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._file.read(size + 2)[:-2].decode()
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        raise ValueError(rest.decode())

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._sock.close()


@contextmanager
def resp_server() -> Iterator[RespClient]:
    """Run a redis-server on a UNIX socket, with nothing on disk."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(prefix="pyry-resp-") as folder:
        path = f"{folder}/s"
        arguments = [PROGRAM, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
            try:
                with closing(_connect(path)) as client:
                    yield client
            finally:
                process.kill()


def _connect(path: str) -> RespClient:
    until = time.monotonic() + START_S
    while True:
        try:
            if Path(path).exists():
                return RespClient(path)
        except OSError:
            pass
        assert time.monotonic() < until, "redis-server did not start"
        time.sleep(0.01)
