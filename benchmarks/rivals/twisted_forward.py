"""A bare Twisted forwarder that copies bytes, to measure the cost of the reactor and the kernel alone.

Usage: ``twisted_forward.py PORT``. A request head is answered with 101, and what follows is not inspected. A phone's
bytes go to the binary of its ``x-pyrycode-server``, a binary's bytes to its phones in turn, one chunk each. Frames are
forwarded unchanged, so those of a phone are masked and not in an envelope.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

BACKLOG = 1024
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
KEY = re.compile(rb"^sec-websocket-key: *(\S+)", re.IGNORECASE | re.MULTILINE)
SERVER_ID = re.compile(rb"^x-pyrycode-server: *(\S+)", re.IGNORECASE | re.MULTILINE)


class Peer(Protocol):
    """A binary or a phone."""

    transport: Any
    binaries: dict[bytes, Peer] = {}  # noqa: RUF012 - of all of them
    server_id = b""
    is_binary = False

    def __init__(self) -> None:
        self.head = b""
        self.others: list[Peer] = []
        self.turn = 0

    def dataReceived(self, data: bytes) -> None:
        """Answer the head, then forward chunks."""
        if self.server_id:
            self.turn += 1
            self.others[self.turn % len(self.others)].transport.write(data)
            return
        self.head += data
        if b"\r\n\r\n" in self.head:
            self.pair()

    def pair(self) -> None:
        """Pair the peer, and send the response to the upgrade."""
        self.transport.setTcpNoDelay(True)
        key, server_id = KEY.search(self.head), SERVER_ID.search(self.head)
        self.is_binary = b"/server " in self.head
        if key is None or server_id is None or not (self.is_binary or server_id[1] in self.binaries):
            self.transport.abortConnection()
            return
        self.server_id = server_id[1]
        if self.is_binary:
            self.binaries[self.server_id] = self
        else:
            binary = self.binaries[self.server_id]
            self.others = [binary]
            binary.others.append(self)
        self.transport.write(ANSWER % base64.b64encode(hashlib.sha1(key[1] + GUID).digest()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remove the peer."""
        if not self.is_binary:
            for binary in self.others:
                binary.others.remove(self)
        elif self.binaries.get(self.server_id) is self:
            del self.binaries[self.server_id]


def main() -> None:
    """Run until a signal arrives."""
    factory: Any = ServerFactory.forProtocol(Peer)
    reactor.listenTCP(int(sys.argv[1]), factory, BACKLOG, "127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
