"""The clients of `flood`: one process that attempts upgrades from many addresses, and reports their outcomes.

It reads a JSON object from standard input (the fields of `Load`), and writes one to standard output. Each source
address is a client that makes one attempt at a time: it connects, sends an upgrade request, waits for the first bytes
of the response or the end of the connection, and closes. Times are seconds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

TIMEOUT_S = 5.0
IPV6_FREEBIND = 78  # linux/in6.h
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close without waiting
REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUser-Agent: bench\r\nx-pyrycode-version: 1\r\n"
    "x-pyrycode-server: {server_id}\r\n\r\n"
)


@dataclass(frozen=True)
class Load:
    """The load: attempts from all ``sources``, one every ``interval_s`` each (0: immediately), for ``for_s``.

    ``honest`` clients close cleanly and are measured; the others reset the connection on the first response. Attempts
    start at ``begin_s`` of the monotonic clock.
    """

    host: str
    port: int
    sources: list[str]
    begin_s: float
    for_s: float
    interval_s: float
    honest: bool


@dataclass
class Client:
    """A source address, and its attempt in progress."""

    source: str
    number: int
    due_s: float
    sock: socket.socket | None = None
    began_s: float = 0.0
    sent: bool = False
    attempts: int = 0


@dataclass
class Outcome:
    """The statuses (0: closed without a byte, -1: timed out), and the durations of honest upgrades."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)


class Generator:
    """Run a `Load` on one epoll loop."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._family = socket.AF_INET6 if ":" in load.host else socket.AF_INET
        self._poll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        step_s = load.interval_s / len(load.sources)
        self._idle = [
            Client(source, number, load.begin_s + number * step_s) for number, source in enumerate(load.sources)
        ]
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Make attempts until the time is over, then wait for the last responses."""
        end_s = self._load.begin_s + self._load.for_s
        while (now := time.monotonic()) < end_s or self._by_fd:
            self._begin_due(now, end_s)
            wait_s = 0.001 if self._by_fd else 0.0005
            for fd, events in self._poll.poll(wait_s):
                if client := self._by_fd.get(fd):
                    self._continue(client, events)
            self._time_out(time.monotonic())
            if not self._idle and not self._by_fd:
                break
        return self._outcome

    def _begin_due(self, now: float, end_s: float) -> None:
        waiting = []
        for client in self._idle:
            if client.due_s >= end_s or now >= end_s:
                continue
            if client.due_s <= now:
                self._begin(client)
            else:
                waiting.append(client)
        self._idle = waiting

    def _begin(self, client: Client) -> None:
        sock = socket.socket(self._family)
        sock.setblocking(False)
        if self._family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.bind((client.source, 0))
        client.sock, client.sent = sock, False
        client.began_s = time.monotonic()
        client.attempts += 1
        sock.connect_ex((self._load.host, self._load.port))
        self._by_fd[sock.fileno()] = client
        self._poll.register(sock.fileno(), select.EPOLLOUT)

    def _continue(self, client: Client, events: int) -> None:
        sock = client.sock
        assert sock is not None
        try:
            if not client.sent:
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
                sock.send(self._request(client))
                client.sent = True
                self._poll.modify(sock.fileno(), select.EPOLLIN)
                return
            answer = sock.recv(4096)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            answer = b""
        self._done(client, int(answer[9:12]) if answer else 0)

    def _request(self, client: Client) -> bytes:
        name = f"honest-{os.getpid()}-{client.number}-{client.attempts}" if self._load.honest else "unknown"
        return REQUEST.format(path="/v1/server" if self._load.honest else "/v1/client", server_id=name).encode()

    def _done(self, client: Client, status: int) -> None:
        now = time.monotonic()
        self._outcome.statuses[status] += 1
        if self._load.honest:
            self._outcome.latencies_s.append(now - client.began_s)
        sock, client.sock = client.sock, None
        assert sock is not None
        del self._by_fd[sock.fileno()]
        if not self._load.honest:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
        # A flood that is late does not catch up.
        client.due_s = max(client.due_s + self._load.interval_s, now if not self._load.honest else 0.0)
        self._idle.append(client)

    def _time_out(self, now: float) -> None:
        for client in [client for client in self._by_fd.values() if now - client.began_s > TIMEOUT_S]:
            self._done(client, -1)


def main() -> None:
    """Read a load, run it, and print the outcome."""
    load = Load(**json.load(sys.stdin))
    outcome = Generator(load).run()
    json.dump({"statuses": outcome.statuses, "latencies_s": outcome.latencies_s}, sys.stdout)


if __name__ == "__main__":
    main()
