"""Words for what OpenSSL says when a connection with TLS fails. PURE."""

from __future__ import annotations

from typing import Final

__all__ = ["CLOSED_AT_ONCE", "NO_TLS", "words_of_tls"]

CLOSED_AT_ONCE: Final = "it closed the connection at once: if it wants TLS, write rediss://"
"""What servers that only speak TLS do with others."""

NO_TLS: Final = "it does not answer with TLS"
_CERT: Final = "write cert=FILE&key=FILE"
_PLAIN: Final = ("wrong version number", "record layer failure", "packet length too long", "http request")
_REFUSED: Final = ("bad certificate", "unknown ca", "certificate", "access denied", "decrypt error")


def words_of_tls(text: str) -> str:
    """Return what an error of OpenSSL means, as texts of it are written in Python's ``ssl`` or in pyOpenSSL."""
    reason = text.lower().replace("_", " ")
    if any(each in reason for each in _PLAIN):
        return NO_TLS
    if "certificate required" in reason:
        return f"it wants a certificate of the relay: {_CERT} at the end of the URL"
    if "handshake failure" in reason:
        return f"TLS failed ({reason}): if it wants a certificate of the relay, {_CERT}"
    if "alert" in reason and any(each in reason for each in _REFUSED):
        return f"it refuses the certificate of the relay ({reason})"
    return f"TLS failed ({reason})" if reason else "TLS failed"
