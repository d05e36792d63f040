"""Clusters of real relays on one Redis server, for benchmarks. Times are seconds."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from _attempts import reset
from _clients import pair
from _frames import TrafficError
from _rig import HOST, Row, Server, arguments, free_port, pin_server, publish, relay

SECRET = "0123456789abcdef0123456789abcdef"
READY_S = 30.0


def run_bench(description: str, bench: Callable[[argparse.Namespace], list[Row]]) -> int:
    """Measure and print what ``bench`` returns, if there is a Redis server to run; return the exit code."""
    options = arguments(description)
    if shutil.which("redis-server") is None:
        print("there is no redis-server")
        return 0
    publish(bench(options), options)
    return 0


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a server on the cores of servers; yield its URL and the number of its process."""
    path = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, preexec_fn=pin_server
    )
    try:
        while not path.exists():
            time.sleep(0.01)
        yield f"redis+unix://{path}", server.pid
    finally:
        server.kill()
        server.wait()


class Together(Server):
    """One server as the one to connect to, and the CPU time of several."""

    def __init__(self, at: Server, *servers: Server) -> None:
        super().__init__(at.pids[0], at.port, at.directory, at.host, at.admin_port)
        self._servers = servers

    @property
    def pids(self) -> list[int]:
        """The process numbers of all of them."""
        return [pid for server in self._servers for pid in server.pids]


class Cluster:
    """Two instances, and the Redis server that they share."""

    def __init__(self, instances: tuple[Server, Server], redis: Server) -> None:
        self.redis = redis
        self.first, self.second = (Together(each, *instances) for each in instances)

    def wait(self) -> None:
        """Wait until phones reach binaries at the other instance."""
        end_s = time.monotonic() + READY_S
        for here, there in ((self.first, self.second), (self.second, self.first)):
            while True:
                try:
                    reset(pair(here, binary_at=there).socks)
                    break
                except (TrafficError, OSError) as error:
                    if time.monotonic() > end_s:
                        raise SystemExit(f"the instances do not find each other: {error}") from error
                    time.sleep(0.2)


@contextlib.contextmanager
def cluster(*options: str) -> Iterator[Cluster]:
    """Run two instances whose directory is warm."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyryrelay-bench-")))
        url, pid = stack.enter_context(redis_server(folder))
        secret = folder / "secret"
        secret.write_text(SECRET, encoding="ascii")
        secret.chmod(0o600)
        instances = []
        for _ in range(2):
            port = free_port()
            member = ("--cluster", url, "--cluster-secret-file", str(secret), "--cluster-peers", HOST)
            place = ("--cluster-listen", f"tcp:{port}:interface={HOST}", "--cluster-advertise", f"{HOST}:{port}")
            instances.append(stack.enter_context(relay(*member, *place, *options)))
        found = Cluster((instances[0], instances[1]), Server(pid, 0, folder))
        found.wait()
        yield found
