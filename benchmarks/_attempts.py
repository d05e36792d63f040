"""Upgrade attempts, one at a time or many at once, and connections that stay open, over plain blocking sockets.

This load generator is faster than all servers that it measures. On loopback, `connect` returns immediately, so a window
of attempts is in flight at any time, and the oldest one is awaited. Times are seconds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

from _rig import Server

CONCURRENCY = 32
TIMEOUT_S = 10
TIMEOUT = struct.pack("ll", TIMEOUT_S, 0)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: lets each source address use all ports
HEAD = (
    "GET {path} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUser-Agent: bench\r\nx-pyrycode-version: 1\r\n"
    "x-pyrycode-server: {server_id}\r\n{more}\r\n"
)


def head(path: str, server_id: str, more: str = "") -> bytes:
    """Return a valid upgrade request; ``more`` is further header lines, each with its line end."""
    return HEAD.format(path=path, server_id=server_id, more=more).encode()


def binary_head(server_id: str, more: str = "") -> bytes:
    """Return the upgrade request of a binary."""
    return head("/v1/server", server_id, more)


def phone_head(server_id: str, more: str = "") -> bytes:
    """Return the upgrade request of a phone."""
    return head("/v1/client", server_id, more)


def _bound(source: str | None) -> socket.socket:
    sock = socket.socket()
    if source is not None:
        sock.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
    return sock


def connect(server: Server, source: str | None = None, timeout_s: float | None = None) -> socket.socket:
    """Connect, from the given source address if any.

    Reading from the socket has a timeout; connecting has one only with ``timeout_s``.
    """
    sock = _bound(source)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEOUT)
    try:
        sock.settimeout(timeout_s)
        sock.connect((server.host, server.port))
        sock.settimeout(None)
    except OSError:
        sock.close()
        raise
    return sock


def send_syns(server: Server, count: int, source: str | None) -> None:
    """Send the first SYN of ``count`` connections, and close each immediately."""
    for _ in range(count):
        with _bound(source) as sock:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect((server.host, server.port))


def attempts(server: Server, head: bytes, count: int, sources: Sequence[str | None] = (None,)) -> Counter[int]:
    """Make ``count`` attempts, each read to the end of the connection, and count the statuses (0: no response)."""
    statuses: Counter[int] = Counter()
    window: deque[socket.socket] = deque()
    for number in range(count):
        try:
            sock = connect(server, sources[number % len(sources)])
            sock.send(head)
        except ConnectionError:
            statuses[0] += 1
            continue
        window.append(sock)
        if len(window) == CONCURRENCY:
            statuses[_status(window.popleft())] += 1
    statuses.update(_status(sock) for sock in window)
    return statuses


def _status(sock: socket.socket) -> int:
    """Read the response and everything that follows."""
    received = b""
    with sock:
        try:
            while data := sock.recv(4096):
                received += data
                if received.startswith(b"HTTP/1.1 101"):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    break
        except ConnectionError:
            pass
    return int(received[9:12]) if received else 0


def open_upgraded(
    server: Server,
    heads: Iterable[bytes],
    sources: Iterator[str] | None = None,
    tls: bool = False,
    at_once: int = CONCURRENCY,
) -> list[socket.socket]:
    """Open an upgraded connection for each head, of which ``at_once`` wait for their answers at any time.

    Raises `RuntimeError` if an upgrade is refused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    all_of_them: list[socket.socket] = []
    window: deque[socket.socket] = deque()
    for head in heads:
        sock = connect(server, None if sources is None else next(sources))
        if tls:
            sock = context.wrap_socket(sock)
        sock.sendall(head)
        window.append(sock)
        all_of_them.append(sock)
        if len(window) == at_once:
            _upgraded(window.popleft())
    for sock in window:
        _upgraded(sock)
    return all_of_them


def _upgraded(sock: socket.socket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(4096)
        if not data:
            break
        answer += data
    if not answer.startswith(b"HTTP/1.1 101"):
        raise RuntimeError(f"no upgrade: {answer[:40]!r}")


def reset(socks: Iterable[socket.socket]) -> None:
    """Reset connections."""
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()


def addresses() -> Iterator[str]:
    """Yield loopback addresses, each in another /24, so that no two share a quota."""
    for second in range(1, 250):
        for third in range(256):
            yield f"127.{second}.{third}.1"
