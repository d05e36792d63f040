"""Authentication of clients (NIP-42): which URLs are ours, and what an AUTH event must be. PURE.

Nothing here verifies an id or a signature. Times are unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pyryrelay.config.endpoints import Endpoint, is_this_machine
from pyryrelay.nostr.events import Event, tag_values
from pyryrelay.nostr.kinds import CLIENT_AUTH
from pyryrelay.nostr.policies.refusal import (
    AUTH_CHALLENGE,
    AUTH_KIND,
    AUTH_RELAY,
    AUTH_TIME,
    Refused,
)

__all__ = ["RelayUrls", "check_auth"]

WINDOW_S: Final = 600
"""How far the time of an AUTH event may be from ours."""

_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}
_MAX_URL: Final = 1024


class _Place(NamedTuple):
    """What of a URL is compared. The default port of either scheme is None."""

    host: str
    port: int | None
    path: str


def _place(url: str) -> tuple[_Place, int] | None:
    """Return what is compared of a relay's URL, and its port, or None for a text that is no such URL."""
    if len(url) > _MAX_URL:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.query or parts.fragment:
        return None
    default = _DEFAULT_PORTS[parts.scheme]
    place = _Place(parts.hostname, None if port == default else port, parts.path.removesuffix("/"))
    return place, default if port is None else port


@dataclass(frozen=True, slots=True)
class RelayUrls:
    """The URLs that clients may sign for us: one that is configured, or those of loopback interfaces.

    ``url`` is that of ``--nostr-url``. Without it, ``ports`` are those on which the relay listens on loopback
    interfaces; None is any port. False if clients cannot authenticate at all.
    """

    url: str = ""
    path: str = "/"
    ports: frozenset[int] | None = frozenset()

    @classmethod
    def of(cls, url: str, path: str, listen: Iterable[str]) -> RelayUrls:
        """Return our URLs: ``url``, or ``path`` on the endpoints, if all of them are on loopback interfaces."""
        if url:
            return cls(url)
        endpoints = [Endpoint.parse(text) for text in listen]
        if not all(endpoint.is_local for endpoint in endpoints):
            return cls()
        ports = [_port(endpoint) for endpoint in endpoints]
        return cls(path=path, ports=None if 0 in ports else frozenset(ports))

    def __bool__(self) -> bool:
        """Tell whether clients can authenticate."""
        return bool(self.url) or self.ports != frozenset()

    def has(self, text: str) -> bool:
        """Tell whether a URL is ours: case of the host, default ports and a final slash make no difference."""
        found = _place(text)
        if found is None:
            return False
        place, port = found
        if self.url:
            ours = _place(self.url)
            return ours is not None and place == ours[0]
        is_port = self.ports is None or port in self.ports
        return is_this_machine(place.host) and is_port and place.path == self.path.removesuffix("/")


def _port(endpoint: Endpoint) -> int:
    """Return the port of an endpoint; 0 if the kernel chooses it, or if a proxy has another one."""
    return int(endpoint.port) if endpoint.port and endpoint.port.isdigit() else 0


def check_auth(event: Event, challenge: str | None, urls: RelayUrls, wall_s: int) -> Refused | None:
    """Return why an AUTH event does not authenticate its author, or None. ``challenge`` is None if none was sent."""
    if event.kind != CLIENT_AUTH:
        return AUTH_KIND()
    if abs(wall_s - event.created_at) > WINDOW_S:
        return AUTH_TIME()
    if challenge is None or challenge not in tag_values(event, "challenge"):
        return AUTH_CHALLENGE()
    if not any(map(urls.has, tag_values(event, "relay"))):
        return AUTH_RELAY()
    return None
