"""A push service and a token service on a real loopback port, in a thread, with answers that a test chooses."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.push import SENT, Received, answer_bytes, key_text

Answer = Callable[[socket.socket], None]
"""Answers one request on its connection; afterwards the next one is read."""

TOKEN_PATH: Final = "/token"
ACCESS_TOKEN: Final = "ya29.m4rker-access-token"


def plain(status: int = 200, body: bytes = SENT, fields: str = "") -> Answer:
    """Return an ordinary answer."""
    return lambda connection: connection.sendall(answer_bytes(status, body, fields))


def half_closed(sent: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{") -> Answer:
    """Return an answer that ends in the middle."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)

    return answer


def endless(head: bytes, part: bytes) -> Answer:
    """Return an answer that goes on until the relay cuts it off."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return answer


class PushServer:
    """Both services. ``answers`` are used in turn for wakes; when none is left, each wake is accepted."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.wakes: list[Received] = []
        self.grants: list[Received] = []
        self.answers: list[Answer] = []
        self.grant_answers: list[Answer] = []
        self.held = threading.Event()
        self.held.set()
        self.port = 0
        self._connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        """Return the value of ``--push-url``."""
        return f"http://127.0.0.1:{self.port}" if self.tls is None else f"https://localhost:{self.port}"

    def key_file(self, directory: Path) -> Path:
        """Write a key whose tokens come from here."""
        path = directory / "fcm.json"
        path.write_text(key_text(token_uri=f"{self.url}{TOKEN_PATH}"))
        path.chmod(0o600)
        return path

    def options(self, directory: Path) -> tuple[str, ...]:
        """Return the options of a relay that sends its wakes here."""
        return ("--push-credentials", str(self.key_file(directory)), "--push-url", self.url)

    def serve(self, connection: socket.socket) -> None:
        """Answer requests until the relay leaves."""
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        self._connections.append(connection)
        while (received := _read(connection)) is not None:
            self._answer(received, connection)

    def _answer(self, received: Received, connection: socket.socket) -> None:
        if received.target == TOKEN_PATH:
            self.grants.append(received)
            body = json.dumps({"access_token": ACCESS_TOKEN, "expires_in": 3599, "token_type": "Bearer"})
            answer = self.grant_answers.pop(0) if self.grant_answers else plain(body=body.encode())
        else:
            self.wakes.append(received)
            answer = self.answers.pop(0) if self.answers else plain()
        self.held.wait(60)
        answer(connection)

    def close(self) -> None:
        """End all connections."""
        self.held.set()
        for connection in self._connections:
            connection.close()


def _read(connection: socket.socket) -> Received | None:
    """Return the next request, None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(fields.get("content-length", "0")):
        body += connection.recv(65536)
    return Received(first.split()[1], fields, body)


@contextmanager
def push_server(tls: ssl.SSLContext | None = None) -> Iterator[PushServer]:
    """Run the services, with TLS if there is a context."""
    services = PushServer(tls)

    class Handler(socketserver.BaseRequestHandler):
        """One connection of the relay."""

        request: Any

        def handle(self) -> None:
            try:
                services.serve(self.request)
            except OSError:
                # The relay has cut it off.
                return

    class Server(socketserver.ThreadingTCPServer):
        """Takes a port of the kernel's choice."""

        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        services.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield services
        finally:
            services.close()
            server.shutdown()
            thread.join()
