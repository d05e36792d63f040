"""Real Redis or Valkey servers for tests: each on a port of its own, without files, and ended by its process number.

``TEST_REDIS_SERVER`` names another program than the ``redis-server`` of the system; see CONTRIBUTING.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from tests.support.ports import free_port

_CHOSEN = os.environ.get("TEST_REDIS_SERVER")
PROGRAM = shutil.which(_CHOSEN) if _CHOSEN else shutil.which("redis-server") or shutil.which("valkey-server")
if _CHOSEN and PROGRAM is None:
    raise RuntimeError(f"TEST_REDIS_SERVER: there is no program {_CHOSEN!r}")
needs_redis = pytest.mark.skipif(PROGRAM is None, reason="needs redis-server")
has_tls = pytest.mark.skipif(
    PROGRAM is None or b"SSL_CTX_new" not in Path(PROGRAM).read_bytes(),
    reason="needs redis-server with TLS",
)
DEADLINE_S = 30.0


class RedisServer:
    """One server on ``port``, whose log is in ``folder``. `start` it, and end it with `kill`.

    ``prefix`` is a command that executes its arguments, in another network namespace if ``host`` is an address there;
    ``within`` is a block for this thread in which that namespace's loopback is. ``environment`` adds variables.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int | None = None,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        within: Callable[[], AbstractContextManager[object]] = nullcontext,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port() if port is None else port
        self.host = host
        self._options = options
        self._prefix = prefix
        self._within = within
        self._environment = os.environ | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{self.host}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str) -> None:
        """Start it, empty, and wait until it answers."""
        assert PROGRAM is not None
        bound = ("127.0.0.1",) if self.host == "127.0.0.1" else ("127.0.0.1", self.host, "--protected-mode", "no")
        command = [*self._prefix, PROGRAM, "--port", str(self.port), "--bind", *bound, "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "no", *self._options, *options]
        self._run(command)
        self.wait()

    def _run(self, command: Sequence[str]) -> None:
        with (self.folder / f"redis-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def wait(self) -> None:
        """Wait until it answers anything at all."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            try:
                if self.ask("PING"):
                    return
            except OSError:
                time.sleep(0.01)
        raise AssertionError(f"redis-server does not answer: see {self.folder}")

    def ask(self, *words: str | bytes) -> bytes:
        """Send one command on a connection of its own; return the answer as it comes."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        lines = [b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)]
        with self._within(), socket.create_connection(("127.0.0.1", self.port), DEADLINE_S) as sock:
            sock.sendall(b"".join(lines))
            return sock.recv(1 << 20)

    def kill(self) -> None:
        """End it without warning, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_S)
            self._process = None

    def pause(self) -> None:
        """Stop it, as a machine does that swaps or hangs."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        os.kill(self.pid, signal.SIGCONT)


class Sentinel(RedisServer):
    """A sentinel that watches the server at ``primary_port`` under the name ``mymaster``."""

    def __init__(self, folder: Path, primary_port: int, quorum: int) -> None:
        super().__init__(folder)
        self._config = folder / f"sentinel-{self.port}.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor mymaster 127.0.0.1 {primary_port} {quorum}",
            "sentinel down-after-milliseconds mymaster 500",
            "sentinel failover-timeout mymaster 3000",
        ]
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def start(self, *options: str) -> None:
        """Start it, and wait until it answers."""
        assert PROGRAM is not None
        self._run([PROGRAM, str(self._config), "--sentinel", *options])
        self.wait()


def cluster_server(folder: Path) -> RedisServer:
    """Return a server of a Redis Cluster, whose second port is higher by 10,000."""
    return RedisServer(folder, "--cluster-enabled", "yes", port=free_port(second=10_000))


def tls_options(port: int, certificate: Path, key: Path, clients: str) -> tuple[str, ...]:
    """Return the options for TLS at a port; ``clients`` says whether they need a certificate: ``yes`` or ``no``."""
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate))
    return ("--tls-port", str(port), *files, "--tls-auth-clients", clients)


@contextmanager
def running(*servers: RedisServer) -> Iterator[None]:
    """Start servers, and end them afterwards."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()
