"""Connections of a load generator: upgrades, refusals, and pairs of a binary and its phones.

Client addresses are spread over 127.0.0.0/8, `PER_ADDRESS` connections each. Times are seconds, sizes bytes. Failures
raise `TrafficError`.
"""

from __future__ import annotations

import itertools
import select
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import _frames
from _attempts import binary_head, head, reset
from _frames import TrafficError
from _rig import Server

RECEIVE_BUFFER_BYTES = 1 << 20
TIMEOUT_S = 10.0
BATCH = 24
"""Connections that are opened at a time."""
PER_ADDRESS = 8
server_ids = (f"bench-{number:06d}" for number in itertools.count())
_sources = itertools.count()


def source() -> str:
    """Return a loopback address, a new one every `PER_ADDRESS` calls."""
    number = next(_sources) // PER_ADDRESS
    return f"127.{1 + number // 62500 % 200}.{1 + number // 250 % 250}.{1 + number % 250}"


def connect(server: Server, head: bytes, address: str) -> socket.socket:
    """Connect from an address and send a request, without waiting for the response."""
    sock = socket.socket()
    sock.settimeout(TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    if server.host.startswith("127."):
        sock.bind((address, 0))
    sock.connect((server.host, server.port))
    sock.sendall(head)
    return sock


def await_upgrade(sock: socket.socket) -> None:
    """Read the response to an upgrade request, and nothing after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (byte := sock.recv(1)):
            break
        head += byte
    if not head.startswith(b"HTTP/1.1 101 "):
        raise TrafficError(f"an upgrade was answered {head[:80]!r}")


def upgrade(server: Server, path: str, ids: Iterable[str]) -> list[socket.socket]:
    """Open connections, a few at a time. Opens all of them or none."""
    opened: list[socket.socket] = []
    waiting: list[socket.socket] = []
    try:
        for server_id in ids:
            waiting.append(connect(server, head(path, server_id), source()))
            opened.append(waiting[-1])
            if len(waiting) == BATCH:
                _await_all(waiting)
        _await_all(waiting)
    except BaseException:
        reset(opened)
        raise
    return opened


def _await_all(waiting: list[socket.socket]) -> None:
    for sock in waiting:
        await_upgrade(sock)
    waiting.clear()


def settle(server: Server) -> None:
    """Wait until the server is idle, for example until it has processed disconnects."""
    end_s = time.monotonic() + TIMEOUT_S
    before_s = server.cpu_s()
    while time.monotonic() < end_s:
        time.sleep(0.02)
        now_s = server.cpu_s()
        if now_s - before_s < 0.0005:
            return
        before_s = now_s


def receive(sock: socket.socket) -> bytes:
    """Wait for one data frame, and return its payload."""
    head = _exactly(sock, 2)
    length_bytes = {126: 2, 127: 8}.get(head[1], 0)
    head += _exactly(sock, length_bytes)
    size_bytes = int.from_bytes(head[2:], "big") if length_bytes else head[1]
    if head[0] not in (_frames.TEXT, _frames.TEXT + 1):
        raise TrafficError(f"not a data frame: {head[0]:#x}, {_exactly(sock, size_bytes)!r}")
    return _exactly(sock, size_bytes)


def _exactly(sock: socket.socket, size_bytes: int) -> bytes:
    parts = b""
    while len(parts) < size_bytes:
        part = sock.recv(size_bytes - len(parts))
        if not part:
            raise TrafficError("the server closed a connection")
        parts += part
    return parts


@dataclass
class Pairing:
    """A binary and its phones, each of which has sent a first frame."""

    binary: socket.socket
    phones: list[socket.socket]
    conn_ids: list[str]

    @property
    def socks(self) -> list[socket.socket]:
        """All connections."""
        return [self.binary, *self.phones]


def pair(server: Server, phones: int = 1, *, bare: bool = False, binary_at: Server | None = None) -> Pairing:
    """Open a binary and its phones, and identify each phone by a first frame, unless the server is ``bare``.

    The binary comes to ``binary_at``, if that is given.
    """
    server_id = next(server_ids)
    socks = upgrade(binary_at or server, "/v1/server", [server_id])
    try:
        socks += upgrade(server, "/v1/client", [server_id] * phones)
        if bare:
            return Pairing(socks[0], socks[1:], [f"client-{server_id}-{number:08x}" for number in range(phones)])
        conn_ids = []
        for number, phone in enumerate(socks[1:]):
            hello = _frames.payload(number, 0, _frames.MIN_PAYLOAD_BYTES)
            phone.sendall(_frames.masked(hello))
            envelope = _frames.open_envelope(receive(socks[0]))
            if envelope.frame != hello:
                raise TrafficError("a first frame was changed")
            conn_ids.append(envelope.conn_id)
    except BaseException:
        reset(socks)
        raise
    return Pairing(socks[0], socks[1:], conn_ids)


def pair_many(server: Server, count: int, *, binaries_at: Server | None = None) -> Iterator[Pairing]:
    """Open pairs of one binary and one phone, a few at a time. Binaries come to ``binaries_at``, if that is given."""
    for begin in range(0, count, BATCH):
        ids = [next(server_ids) for _ in range(min(BATCH, count - begin))]
        binaries = upgrade(binaries_at or server, "/v1/server", ids)
        phones = upgrade(server, "/v1/client", ids)
        hello = _frames.payload(0, 0, _frames.MIN_PAYLOAD_BYTES)
        for phone in phones:
            phone.sendall(_frames.masked(hello))
        for binary, phone in zip(binaries, phones, strict=True):
            yield Pairing(binary, [phone], [_frames.open_envelope(receive(binary)).conn_id])


# Idle connections, upgrades and refusals


class IdleBinaries:
    """Connected binaries that send nothing but pongs; a context manager."""

    def __init__(self, server: Server, count: int) -> None:
        self._server = server
        self._poll = select.epoll()
        self._by_fd = {}
        self._socks = upgrade(server, "/v1/server", [next(server_ids) for _ in range(count)])
        for sock in self._socks:
            self._poll.register(sock.fileno(), select.EPOLLIN)
            self._by_fd[sock.fileno()] = sock

    def answer_pings(self) -> None:
        """Answer the pings that have arrived. Raises `TrafficError` if a connection was closed."""
        for fd, _ in self._poll.poll(0, max(1, len(self._socks))):
            data = self._by_fd[fd].recv(4096)
            if not data:
                raise TrafficError("the server closed an idle connection")
            for first, said in _frames.frames(data):
                if first != _frames.PING:
                    raise TrafficError(f"an idle connection was sent {first:#x}, {said!r}")
                self._by_fd[fd].sendall(_frames.masked(said, _frames.PONG))

    def __enter__(self) -> IdleBinaries:
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()
        reset(self._socks)


def upgrade_cost_s(server: Server, count: int) -> float:
    """Return the server's CPU time per upgrade, until the responses have arrived."""
    before_s = server.cpu_s()
    socks = upgrade(server, "/v1/server", [next(server_ids) for _ in range(count)])
    spent_s = server.cpu_s() - before_s
    reset(socks)
    settle(server)
    return spent_s / count


def refusal_cost_s(server: Server, count: int, address: str) -> float:
    """Return the server's CPU time per attempt from one address, whose quota is spent."""
    request = binary_head(next(server_ids))
    before_s = server.cpu_s()
    for begin in range(0, count, BATCH):
        waiting = [connect(server, request, address) for _ in range(min(BATCH, count - begin))]
        for sock in waiting:
            _await_refusal(sock)
    settle(server)
    return (server.cpu_s() - before_s) / count


def spend_quota(server: Server, address: str) -> None:
    """Attempt upgrades until they are refused."""
    for _ in range(1000):
        sock = connect(server, binary_head(next(server_ids)), address)
        with sock:
            if not sock.recv(4096).startswith(b"HTTP/1.1 101 "):
                return
    raise TrafficError("1000 upgrades were accepted from one address")


def _await_refusal(sock: socket.socket) -> None:
    answer = b""
    with sock:
        while data := sock.recv(4096):
            answer += data
            if answer.startswith(b"HTTP/1.1 101 "):
                break
    if not answer.startswith(b"HTTP/1.1 429 "):
        raise TrafficError(f"not a refusal: {answer[:80]!r}")
