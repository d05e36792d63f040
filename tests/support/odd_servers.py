"""Servers on loopback that answer in odd ways, and some that are relays."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

SOON_S = 60.0


@contextmanager
def serving(handle: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Hand each connection to ``handle``, with TLS if there is a context; yield the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve_one(connection: socket.socket) -> None:
        connection.settimeout(SOON_S)
        with suppress(OSError), connection:
            if context is None:
                handle(connection)
                return
            with context.wrap_socket(connection, server_side=True) as secured:
                handle(secured)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                Thread(target=serve_one, args=(connection,), daemon=True).start()

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(SOON_S)


def read_head(connection: socket.socket) -> bytes:
    """Read a request up to the end of its head."""
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(4_096)):
        data += more
    return data


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    """Return a server that reads a request, answers, and closes."""

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answer)

    return handle


def server_context(folder: Path) -> ssl.SSLContext:
    """Return a context with the certificate of ``relay.example`` in a folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
