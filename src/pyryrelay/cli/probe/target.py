"""The URL of a relay. PURE."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pyryrelay.text import quoted

__all__ = ["Target", "target"]

_SCHEMES: Final = {"ws": ("ws", 80), "http": ("ws", 80), "wss": ("wss", 443), "https": ("wss", 443)}
_FORM: Final = "write wss://relay.example or ws://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Target:
    """A relay: scheme ``ws`` or ``wss``, host, port, and the path of the URL, which is "" if it has none."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_tls(self) -> bool:
        """Whether the connection begins with TLS."""
        return self.scheme == "wss"

    @property
    def authority(self) -> str:
        """Host and port as the Host field has them: without a port that is the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _SCHEMES[self.scheme][1] else f"{host}:{self.port}"

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"{self.scheme}://{self.authority}{path or '/'}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def target(text: str) -> Target:
    """Read a URL; without a scheme it is ``wss:``. Raises `ArgumentTypeError`."""
    url = text if "://" in text else f"wss://{text}"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        port, host = 0, None
    is_printable = text.isascii() and text.isprintable() and " " not in text
    if not is_printable or not host or port == 0 or parts.scheme not in _SCHEMES:
        raise ArgumentTypeError(f"{quoted(text)} is not the URL of a relay: {_FORM}")
    if "@" in parts.netloc:
        raise ArgumentTypeError("the URL has a password in it, which a relay does not ask for: leave it out")
    if parts.query or parts.fragment:
        raise ArgumentTypeError(f"{quoted(text)} has a query or fragment: leave it out")
    scheme, default = _SCHEMES[parts.scheme]
    return Target(scheme, host, default if port is None else port, parts.path.rstrip("/"))
