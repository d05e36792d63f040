"""A relay in plain Autobahn: each message arrives in `onMessage` and is forwarded with `sendMessage`.

Usage: ``autobahn_forward.py PORT``. It implements as much of the protocol as a well-behaved load generator needs:
binaries on ``/v1/server``, phones on ``/v1/client``, paired by ``x-pyrycode-server``. A phone's frames are wrapped in
an envelope and a binary's are unwrapped as bytes, without parsing the JSON. There are no limits, no checks and no
backpressure.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet import reactor

BACKLOG = 1024
BEFORE_ID, BEFORE_FRAME, END = b'{"conn_id":"', b'","frame":', b"}"


class Peer(WebSocketServerProtocol):
    """A binary or a phone."""

    transport: Any
    binaries: dict[str, Any] = {}  # noqa: RUF012 - of all of them

    def onConnect(self, request: ConnectionRequest) -> None:
        """Store the role and the server-id."""
        self.transport.setTcpNoDelay(True)
        self.server_id: str = request.headers["x-pyrycode-server"]
        self.is_binary = request.path.endswith("/server")

    def onOpen(self) -> None:
        """Pair a phone with its binary."""
        if self.is_binary:
            self.phones: dict[bytes, Any] = {}
            self.binaries[self.server_id] = self
            return
        binary = self.binaries.get(self.server_id)
        if binary is None:
            self.sendClose(4404, "no server with that id")
            return
        conn_id = f"client-{self.server_id}-{secrets.token_hex(4)}".encode()
        self.binary, self.conn_id = binary, conn_id
        self.head = BEFORE_ID + conn_id + BEFORE_FRAME
        binary.phones[conn_id] = self

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Forward a message."""
        if not self.is_binary:
            self.binary.sendMessage(self.head + payload + END)
            return
        middle = payload.index(BEFORE_FRAME)
        phone = self.phones.get(payload[len(BEFORE_ID) : middle])
        if phone is not None:
            phone.sendMessage(payload[middle + len(BEFORE_FRAME) : -len(END)])

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Remove the peer."""
        if not hasattr(self, "is_binary"):
            return
        if self.is_binary:
            self.binaries.pop(self.server_id, None)
        elif hasattr(self, "binary"):
            self.binary.phones.pop(self.conn_id, None)


def main() -> None:
    """Run until a signal arrives."""
    factory = WebSocketServerFactory()
    factory.protocol = Peer
    reactor.listenTCP(int(sys.argv[1]), factory, BACKLOG, "127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
