"""An admin API on loopback that answers what a test has set, for clients of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class FakeRelay:
    """The requests that the server got, and its response to each: raw bytes, or JSON."""

    url: str = ""
    status: int = 200
    body: Any = None
    fields: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    received: list[dict[str, str]] = field(default_factory=list)
    """The header fields of the requests."""
    bodies: list[Any] = field(default_factory=list)


@contextmanager
def serving_relay() -> Iterator[FakeRelay]:
    """Run a server for the duration of a test."""
    fake = FakeRelay()

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            fake.requests.append((self.command, self.path))
            fake.received.append(dict(self.headers))
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fake.bodies.append(json.loads(sent) if sent else None)
            content = fake.body if isinstance(fake.body, bytes) else json.dumps(fake.body).encode()
            self.send_response(fake.status)
            for name, value in fake.fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _respond  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()
