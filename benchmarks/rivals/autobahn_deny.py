"""Plain Autobahn as in its manual: a server that denies every upgrade with 429, or accepts every one.

Usage: ``autobahn_deny.py PORT [--accept] [--tls]``. With ``--tls`` the working directory holds ``key.pem`` and
``cert.pem``.
"""

from __future__ import annotations

import argparse

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

BACKLOG = 1024


class Denying(WebSocketServerProtocol):
    """Denies every upgrade."""

    def onConnect(self, request: ConnectionRequest) -> None:
        """Deny the upgrade."""
        raise ConnectionDeny(429, "Too Many Requests")


def main() -> None:
    """Run until a signal arrives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("--tls", action="store_true")
    asked = parser.parse_args()
    factory = WebSocketServerFactory()
    factory.protocol = WebSocketServerProtocol if asked.accept else Denying
    kind, keys = ("ssl", ":privateKey=key.pem:certKey=cert.pem") if asked.tls else ("tcp", "")
    endpoint = serverFromString(reactor, f"{kind}:{asked.port}:interface=127.0.0.1:backlog={BACKLOG}{keys}")
    endpoint.listen(factory)
    reactor.run()


if __name__ == "__main__":
    main()
