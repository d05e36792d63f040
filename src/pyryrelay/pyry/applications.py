"""The two applications of the pyry protocol, one for binaries and one for phones, on one `Relay`.

Contract: the specification "pyry-v1".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pyryrelay.close_codes import CloseCode
from pyryrelay.protocol import HttpRefusal, HttpRequest, Peer, PeerPolicy, Request, Session
from pyryrelay.pyry.relay import BINARY_ROUTE, PHONE_ROUTE, Relay
from pyryrelay.pyry.sessions import BinarySession, PhoneSession

MAX_SERVER_ID_LENGTH = 128
_SERVER_ID = re.compile(f"[!-~]{{1,{MAX_SERVER_ID_LENGTH}}}")

FRAME_OVERHEAD_BYTES = 64

PHONE_POLICY = PeerPolicy(
    outbox_bytes=4 * 1024 * 1024,
    frame_overhead_bytes=FRAME_OVERHEAD_BYTES,
    outbox_reason="phone backlog full",
    stall_timeout_s=60.0,
)
"""A slow phone affects only itself, never its siblings or the binary. A waiting frame costs memory beyond its bytes.

A phone that is unreachable for a moment receives the backlog when it is back; TCP may wait up to a minute before it
tries again. A phone that takes nothing for longer is closed, even if it answers pings, or is not pinged because it is
paused."""

BINARY_POLICY = PeerPolicy(
    outbox_bytes=64 * 1024 * 1024,
    frame_overhead_bytes=FRAME_OVERHEAD_BYTES,
    outbox_reason="binary backlog full",
    stall_timeout_s=10.0,
)
"""A slow binary has its phones paused, which bounds its backlog to the high-water mark and the chunk that crossed it.
Envelopes around the smallest frames make that chunk up to 40 times as large. A binary that takes nothing for 10 s is
closed."""

REFUSAL_WORDS = ("bad_server_id", "missing_header")


def _bad_server_id(server_id: str) -> bool:
    return _SERVER_ID.fullmatch(server_id) is None


def _gate(request: Request, required: Sequence[str]) -> HttpRefusal | None:
    if _bad_server_id(request.header("x-pyrycode-server")):
        return HttpRefusal(400, "bad_server_id")
    if not all(request.header(name) for name in required):
        return HttpRefusal(400, "missing_header")
    return None


def _no_upgrade(request: HttpRequest) -> HttpRefusal:
    if request.method == "GET":
        return HttpRefusal(426, "no_upgrade")
    return HttpRefusal(405, "bad_method", (("Allow", "GET"),))


class BinaryApplication:
    """`/v1/server`: binaries claim a server-id."""

    name = BINARY_ROUTE
    policy = BINARY_POLICY

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """See `pyryrelay.protocol.Application`."""
        return _gate(request, ("x-pyrycode-version", "user-agent"))

    def place_key(self, request: Request) -> str:
        """Return the server-id: a binary and its phones are served by one process."""
        return request.header("x-pyrycode-server")

    def http(self, request: HttpRequest) -> HttpRefusal:
        """Refuse the request: these paths only accept upgrades."""
        return _no_upgrade(request)

    def opened(self, peer: Peer, request: Request) -> Session:
        """Claim the server-id that the header names."""
        session = BinarySession(self._relay, peer, request)
        handover = self._relay.handover
        try:
            handed = None if handover is None else handover.opened(session, session.claim)
            if handed is not None:
                return handed
            session.claim()
        except Exception:
            session.closed(CloseCode.INTERNAL_ERROR, "")
            raise
        return session


class PhoneApplication:
    """`/v1/client`: phones join the server-id of a binary."""

    name = PHONE_ROUTE
    policy = PHONE_POLICY

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """See `pyryrelay.protocol.Application`. A token is not looked at."""
        return _gate(request, ("user-agent",))

    def place_key(self, request: Request) -> str:
        """Return the server-id: a phone is served where its binary is."""
        return request.header("x-pyrycode-server")

    def http(self, request: HttpRequest) -> HttpRefusal:
        """Refuse the request: these paths only accept upgrades."""
        return _no_upgrade(request)

    def opened(self, peer: Peer, request: Request) -> Session:
        """Register the phone, or close it with 4404 or 4429."""
        session = PhoneSession(self._relay, peer, request)
        handover = self._relay.handover
        try:
            handed = None if handover is None else handover.opened(session, session.join)
            if handed is not None:
                return handed
            session.join()
        except Exception:
            session.closed(CloseCode.INTERNAL_ERROR, "")
            raise
        return session
