"""An HTTP client of the admin listener, in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site

from pyryrelay.admin.access import Access

PEER = IPv4Address("TCP", "127.0.0.1", 50_000)


def open_access(*host_names: str) -> Access:
    """Return the checks of a listener without a token."""
    access = Access(lambda: 0.0)
    access.configure(None, host_names)
    return access


@dataclass(frozen=True)
class Response:
    """A parsed response."""

    status: int
    fields: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.text)

    @property
    def error(self) -> str:
        """The text of an error."""
        error = self.json["error"]
        assert isinstance(error, str)
        assert error.isprintable()
        return error


class Exchange:
    """A request on a connection of its own, which arrives byte by byte."""

    def __init__(self, site: Site, peer: IAddress, content: str) -> None:
        self._channel: Any = site.buildProtocol(peer)
        self._transport = StringTransport(peerAddress=peer)
        self._channel.makeConnection(self._transport)
        for byte in content.encode("latin-1"):
            self._channel.dataReceived(bytes([byte]))

    def receive(self, data: bytes) -> None:
        """More arrives from the client."""
        self._channel.dataReceived(data)

    def disconnect(self) -> None:
        """The client disconnects."""
        self._channel.connectionLost(Failure(ConnectionLost()))

    @property
    def is_cut_off(self) -> bool:
        """Whether the site has reset the connection."""
        return bool(self._transport.disconnected or getattr(self._transport, "aborting", False))

    @property
    def sent(self) -> bytes:
        """Everything that the site has sent."""
        sent: bytes = self._transport.value()
        return sent

    @property
    def response(self) -> Response:
        """The parsed response. No response of the site has a CORS field."""
        head, _, text = self.sent.decode().partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        assert not any(name.lower().startswith("access-control") for name in fields)
        return Response(int(status.split()[1]), fields, text)


class Client:
    """An HTTP client of a site."""

    def __init__(self, site: Site, peer: IAddress = PEER) -> None:
        self.site = site
        self.peer = peer

    def send(self, content: str) -> Exchange:
        """Send these characters."""
        return Exchange(self.site, self.peer, content)

    def begin(self, method: str, path: str, body: str = "", host: str = "127.0.0.1:9090", **fields: str) -> Exchange:
        """Send a request; ``fields`` are header fields with underscores for hyphens."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join([*lines, "", body]))

    def request(self, method: str, path: str, body: str = "", host: str = "127.0.0.1:9090", **fields: str) -> Response:
        """Send a request and return the response."""
        exchange = self.begin(method, path, body, host, **fields)
        exchange.disconnect()
        return exchange.response

    def change(self, method: str, path: str, body: str = "", **fields: str) -> Response:
        """Send a request with the header field that changes need, and return the response."""
        return self.request(method, path, body, X_Pyryrelay_Admin="1", **fields)


def chunked(*chunks: str) -> Iterator[str]:
    """Encode a body in the chunked transfer coding (RFC 9112 section 7.1)."""
    for chunk in chunks:
        yield f"{len(chunk):x}\r\n{chunk}\r\n"
    yield "0\r\n\r\n"
