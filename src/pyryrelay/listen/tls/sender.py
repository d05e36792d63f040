"""The sending half of TLS: plaintext in, records out. `pyryrelay.listen.tls.transport` is the receiving half."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from OpenSSL import SSL
from twisted.protocols.policies import ProtocolWrapper

PLAINTEXT_BYTES: Final = 1 << 14
"""The most plaintext that one record can carry (RFC 8446 section 5.1)."""
_OUTPUT_BYTES: Final = 1 << 17
"""Bytes that are taken from OpenSSL at once: nearly always all that there are."""


class TlsSender(ProtocolWrapper):
    """What sends, of one connection. Subclasses set the attributes."""

    transport: Any
    _tls: SSL.Connection | None
    _is_handshake_done: bool
    _is_over: bool

    def write(self, data: bytes) -> None:
        """Encrypt and send. Before the handshake, and after the end, nothing can be sent."""
        tls = self._tls
        if tls is None or not self._is_handshake_done or self.disconnecting or self._is_over or not data:
            return
        try:
            for at in range(0, len(data), PLAINTEXT_BYTES):
                tls.send(data[at : at + PLAINTEXT_BYTES])
        except SSL.Error:
            self.abortConnection()
        else:
            self._send_out(tls)

    def writeSequence(self, data: Sequence[bytes]) -> None:
        """Encrypt and send several pieces."""
        self.write(b"".join(data))

    def _send_out(self, tls: SSL.Connection) -> None:
        """Send what OpenSSL has produced."""
        try:
            while True:
                data = tls.bio_read(_OUTPUT_BYTES)
                self.transport.write(data)
                if len(data) < _OUTPUT_BYTES:
                    return
        except SSL.WantReadError:
            return

    def _send_close_notify(self, tls: SSL.Connection) -> None:
        with contextlib.suppress(SSL.Error):  # it was sent before, or the connection is broken
            tls.shutdown()
        self._send_out(tls)
