"""Nostr clients of a load generator, signed events, and the relays that are measured.

Events are signed beforehand, and each client's messages are framed and masked beforehand, so that the load costs as
little as possible. They have about 730 B, three tags, and authors that take turns. Times are seconds, sizes bytes.
Failures raise `TrafficError`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _attempts import head
from _clients import await_upgrade, connect
from _frames import PING, PONG, TEXT, TrafficError, masked
from _rig import HOST, Server, directory, free_port, relay, rival, running

LOCAL_RELAY, NOSTR_RELAY = "nostr-sdk's LocalRelay", "nostr-relay of PyPI"
OPEN = ("--nostr", "--no-pyry", "--nostr-preset", "open", "--nostr-max-subscriptions-per-address", "off")
EVENT_BYTES = 730
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 17
_NOSTR_RELAY_PROGRAM = Path(sys.executable).parent / "nostr-relay"
_random = random.Random(7)


def ours(*options: str) -> contextlib.AbstractContextManager[Server]:
    """Run the relay with Nostr alone, without rates, and its database in memory unless ``options`` name another."""
    return relay(*OPEN, *options)


def has_local_relay() -> bool:
    """Return whether nostr-sdk is installed."""
    return importlib.util.find_spec("nostr_sdk") is not None


def has_nostr_relay() -> bool:
    """Return whether nostr-relay is installed."""
    return _NOSTR_RELAY_PROGRAM.exists()


def local_relay() -> contextlib.AbstractContextManager[Server]:
    """Run the relay of nostr-sdk, which keeps its events in memory."""
    return rival("nostr_sdk_relay")


@contextlib.contextmanager
def nostr_relay() -> Iterator[Server]:
    """Run the relay of the distribution ``nostr-relay``, on SQLite."""
    port = free_port()
    with directory() as where:
        (where / "config.yaml").write_text(_NOSTR_RELAY_CONFIG.format(port=port), encoding="utf-8")
        with running([str(_NOSTR_RELAY_PROGRAM), "-c", "config.yaml", "serve"], where, port) as server:
            yield server


_NOSTR_RELAY_CONFIG = """\
DEBUG: false
relay_name: rival
storage:
  sqlalchemy.url: sqlite+aiosqlite:///nostr.sqlite3
  num_concurrent_reqs: 10
  num_concurrent_adds: 2
  validators: [nostr_relay.validators.is_not_too_large, nostr_relay.validators.is_signed]
verification: {{nip05_verification: disabled}}
gunicorn: {{bind: "127.0.0.1:{port}", workers: 1, loglevel: error, reload: false}}
authentication: {{enabled: false}}
subscription_limit: 1000
"""


def use_all_cores(server: Server) -> None:
    """Let the server and this process run on every core, in turns as the kernel sees fit.

    A server of several processes must not run with real-time priority on one core: a process that computes would keep
    the others from running for 100 ms.
    """
    every = set(range(os.cpu_count() or 1))
    tasks = [int(task.name) for pid in server.pids for task in Path(f"/proc/{pid}/task").iterdir()]
    for task in [*tasks, 0]:
        os.sched_setaffinity(task, every)
        os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))


# Events


@dataclass(frozen=True)
class Signed:
    """One signed event: its id, its author, and its JSON."""

    id: str
    pubkey: str
    json: bytes


class Signer:
    """Authors who sign events; ``authors`` of them take turns."""

    def __init__(self, authors: int = 100, seed: int = 7) -> None:
        from coincurve import PrivateKey

        source = random.Random(seed)
        self.keys = [PrivateKey(source.randbytes(31).rjust(32, b"\1")) for _ in range(authors)]
        self.pubkeys = [key.public_key.format()[1:].hex() for key in self.keys]
        self._count = 0

    def event(self, kind: int = 1, created_at: int | None = None, tags: list[list[str]] | None = None) -> Signed:
        """Sign the next event. Without tags, it gets three of random values."""
        number = self._count = self._count + 1
        author = number % len(self.keys)
        if tags is None:
            tags = [
                ["e", _random.randbytes(32).hex()],
                ["p", _random.randbytes(32).hex()],
                ["t", f"topic{number % 500}"],
            ]
        fields = {
            "pubkey": self.pubkeys[author],
            "created_at": int(time.time()) if created_at is None else created_at,
            "kind": kind,
            "tags": tags,
            "content": "",
        }
        spare = EVENT_BYTES - 234 - len(_compact(fields))
        fields["content"] = (f"{number} " + "The quick brown fox jumps over the lazy dog. " * 12)[: max(8, spare)]
        preimage = _compact([0, *fields.values()])
        digest = hashlib.sha256(preimage).digest()
        signature = self.keys[author].sign_schnorr(digest, bytes(32)).hex()
        return Signed(digest.hex(), self.pubkeys[author], _compact({"id": digest.hex(), **fields, "sig": signature}))

    def events(self, count: int) -> list[Signed]:
        """Sign a number of events of kind 1."""
        return [self.event() for _ in range(count)]


def spoiled(event: Signed) -> bytes:
    """Return the JSON of an event with a wrong signature, whose id is right."""
    at = event.json.index(b'"sig":"') + 7
    return event.json[:at] + event.json[at : at + 64] + b"0" * 64 + event.json[at + 128 :]


def _compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def publishing(json_text: bytes) -> bytes:
    """Return the frame that publishes an event."""
    return masked(b'["EVENT",' + json_text + b"]")


# Clients


class Client:
    """One connection, blocking."""

    def __init__(self, server: Server, address: str = "127.0.0.1", receive_buffer: int | None = None) -> None:
        self.sock = connect(server, head("/", "x"), address)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await_upgrade(self.sock)
        self.sock.settimeout(TIMEOUT_S)
        self._buffer = bytearray()

    def send(self, *message: object) -> None:
        """Send one message."""
        self.sock.sendall(masked(_compact(message)))

    def receive(self) -> bytes:
        """Wait for the next text message. Pings are answered."""
        while True:
            found = self._next()
            if found is None:
                data = self.sock.recv(CHUNK_BYTES)
                if not data:
                    raise TrafficError("the server closed a connection")
                self._buffer += data
            elif found[0] == TEXT:
                return found[1]
            elif found[0] == PING:
                self.sock.sendall(masked(found[1], PONG))
            else:
                raise TrafficError(f"not a text message: {found}")

    def _next(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + size:
            return None
        frame = buffer[0], bytes(buffer[start : start + size])
        del buffer[: start + size]
        return frame

    def publish(self, event: Signed) -> None:
        """Publish an event, and wait until it is accepted."""
        self.sock.sendall(publishing(event.json))
        answer: Any = json.loads(self.receive())
        if answer[:3] != ["OK", event.id, True]:
            raise TrafficError(f"an event was answered {answer}")

    def fetch(self, *filters: object, name: str = "q") -> int:
        """Ask, wait for the end of what is stored, close the subscription; return the number of events."""
        self.send("REQ", name, *filters)
        events = 0
        while not (answer := self.receive()).startswith((b'["EOSE"', b'["CLOSED"', b'["NOTICE"')):
            events += 1
        if not answer.startswith(b'["EOSE"'):
            raise TrafficError(f"a query was answered {answer[:200]!r}")
        self.send("CLOSE", name)
        return events

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


class Publisher:
    """Connections that publish events as fast as the server takes them, and count the answers."""

    def __init__(self, server: Server, frames: Sequence[Sequence[bytes]]) -> None:
        self._clients = [Client(server, f"127.0.0.{9 + number}") for number in range(len(frames))]
        self._waiting = {
            c.sock.fileno(): memoryview(b"".join(sent)) for c, sent in zip(self._clients, frames, strict=True)
        }
        self._socks = {client.sock.fileno(): client.sock for client in self._clients}
        self._due = sum(map(len, frames))

    def run(self) -> None:
        """Send everything and wait for the last answer. Raises `TrafficError` if an event is refused."""
        poll = select.epoll()
        for fd, sock in self._socks.items():
            sock.setblocking(False)
            poll.register(fd, select.EPOLLIN | select.EPOLLOUT)
        answered, tails = 0, dict.fromkeys(self._socks, b"")
        while answered < self._due:
            ready = poll.poll(TIMEOUT_S)
            if not ready:
                raise TrafficError(f"only {answered} of {self._due} events were answered")
            for fd, what in ready:
                if what & select.EPOLLIN:
                    data = tails[fd] + self._socks[fd].recv(CHUNK_BYTES)
                    if len(data) == len(tails[fd]) or b",false," in data:
                        raise TrafficError(f"refused or closed: {data[-300:]!r}")
                    # An answer may be cut anywhere: what is behind the last one waits for the rest.
                    found = data.count(b'["OK",')
                    cut = data.rfind(b'["OK",') + 6 if found else max(0, len(data) - 5)
                    answered, tails[fd] = answered + found, data[cut:][-90:]
                if what & select.EPOLLOUT:
                    left = self._waiting[fd]
                    with contextlib.suppress(BlockingIOError):
                        left = self._waiting[fd] = left[self._socks[fd].send(left[:CHUNK_BYTES]) :]
                    if not left:
                        poll.modify(fd, select.EPOLLIN)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            client.close()


def percentiles_ms(samples: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    ordered = sorted(samples)
    return 1000 * ordered[len(ordered) // 2], 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def timed(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


__all__ = [
    "HOST",
    "LOCAL_RELAY",
    "NOSTR_RELAY",
    "Client",
    "Publisher",
    "Signed",
    "Signer",
    "has_local_relay",
    "has_nostr_relay",
    "local_relay",
    "nostr_relay",
    "ours",
    "percentiles_ms",
    "publishing",
    "spoiled",
    "timed",
    "use_all_cores",
]
