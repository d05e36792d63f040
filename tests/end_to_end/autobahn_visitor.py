"""A client by Autobahn in a process of its own, which visits the echo room and asks for compressed messages.

    python -m tests.end_to_end.autobahn_visitor URL NO_CONTEXT TEXTS

It sends each of the texts, a JSON array, when the one before has come back, and prints what came back.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponseAccept
from twisted.internet import reactor


class Visitor(WebSocketClientProtocol):
    """The client."""

    texts: list[str]

    def onOpen(self) -> None:
        """Send the first text."""
        self.echoes: list[str] = []
        self._send()

    def _send(self) -> None:
        self.sendMessage(self.texts[len(self.echoes)].encode())  # type: ignore[no-untyped-call]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Send the next text, or print what came back."""
        self.echoes.append(payload.decode())
        if len(self.echoes) < len(self.texts):
            self._send()
        else:
            compression: Any = self._perMessageCompress
            name = None if compression is None else compression.EXTENSION_NAME
            sys.stdout.write(json.dumps([name, self.echoes]))
            self.sendClose()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """End the process."""
        reactor.stop()


def main(url: str, no_context: str, texts: str) -> None:
    """Visit the room."""
    factory = WebSocketClientFactory(url, headers={"X-Visitor": "v"})
    Visitor.texts = json.loads(texts)
    factory.protocol = Visitor
    offer = PerMessageDeflateOffer(request_no_context_takeover=no_context == "true")
    factory.setProtocolOptions(
        perMessageCompressionOffers=[offer], perMessageCompressionAccept=PerMessageDeflateResponseAccept
    )
    connectWS(factory)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
