"""The relay on its path: sessions for peers, and plain HTTP (spec section 1): NIP-11's document and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pyryrelay.close_codes import CloseCode
from pyryrelay.nostr.information import CORS, ROUTE
from pyryrelay.nostr.serving.connection import SHUTTING_DOWN
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.nostr.serving.session import NostrSession
from pyryrelay.protocol import HttpAnswer, HttpRefusal, HttpRequest, Page, Peer, PeerPolicy, Request

POLICY: Final = PeerPolicy(stall_timeout_s=30.0)
"""What waits for a peer is bounded by `pyryrelay.nostr.serving.outgoing`."""

_INFORMATION_TYPE: Final = "application/nostr+json"
_MANAGEMENT_TYPE: Final = "application/nostr+json+rpc"
_PAGE_FIELDS: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", "default-src 'none'"),
)


def media_types(values: Sequence[str]) -> list[str]:
    """Return the media types of ``Accept`` or ``Content-Type`` fields, in lower case and without parameters."""
    return [item.partition(";")[0].strip().lower() for value in values for item in value.split(",")]


class NostrApplication:
    """The relay's only application. See `pyryrelay.protocol.Application`.

    ``document`` and ``page`` return NIP-11's document and the page for browsers, as they are right now.
    """

    name = ROUTE
    policy = POLICY

    def __init__(self, relay: Relay, document: Callable[[], bytes], page: Callable[[], bytes]) -> None:
        self._relay = relay
        self._document = document
        self._page = page

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """Refuse nothing: browsers are the main clients, so any ``Origin`` is welcome."""
        return None

    def place_key(self, request: Request) -> str | None:
        """See `pyryrelay.protocol.Application`: any process serves a connection as well as another."""
        return None

    def opened(self, peer: Peer, request: Request) -> NostrSession:
        """Begin a session, with the challenge if everybody needs to authenticate."""
        session = NostrSession(self._relay, peer, request.client)
        options = self._relay.options
        if self._relay.is_ending:
            peer.close(CloseCode.GOING_AWAY, SHUTTING_DOWN)
        elif options.nostr_auth_challenge == "connect" or options.nostr_read == options.nostr_write == "auth":
            session.challenge()
        return session

    def http(self, request: HttpRequest) -> HttpAnswer:
        """Answer a request that asks for no upgrade."""
        match request.method:
            case "GET" | "HEAD":
                if _INFORMATION_TYPE in media_types(request.headers.get("accept", ())):
                    return Page(200, (("Content-Type", _INFORMATION_TYPE), *CORS), self._document())
                return Page(200, (*_PAGE_FIELDS, *CORS), self._page())
            case "OPTIONS":
                return Page(204, CORS)
            case "POST":
                if _MANAGEMENT_TYPE in media_types(request.headers.get("content-type", ())):
                    return HttpRefusal(404, "no_management", CORS)
                return HttpRefusal(415, "bad_media_type", CORS)
        return HttpRefusal(405, "bad_method", (("Allow", "GET, HEAD, POST, OPTIONS"), *CORS))
