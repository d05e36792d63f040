"""Proof that a connection comes from another instance of the cluster, and whom it is for. PURE.

A ticket names the sender and the client, when it was made, and a random nonce. An HMAC by the cluster's secret covers
these and the instance that the connection is for, with its boot id. So a ticket that was overheard is of no use at
another instance, or after a restart; and an instance takes each nonce once. A process that takes over the socket of
another one, as in an upgrade, has the same boot id and none of its nonces, so it takes no ticket that was made before
it began; and the one before takes none from then on.

Layout: version (1 byte), HMAC-SHA-256 (32), time in us since 1970 (8), nonce (16), length of the sender's name (1), the
sender's name, the client's address as text. Times are seconds since 1970.
"""

from __future__ import annotations

import hmac
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

from pyryrelay.cluster.directory.members import Member

__all__ = [
    "MAX_AGE_S",
    "MAX_NONCES",
    "NONCE_BYTES",
    "Nonces",
    "Ticket",
    "TicketError",
    "TicketProblem",
    "read",
    "write",
]

MAX_AGE_S: Final = 30.0
"""How old a ticket may be, and how far the clocks of two instances may be apart."""
NONCE_BYTES: Final = 16
MAX_NONCES: Final = 200_000
"""How many tickets an instance takes in `MAX_AGE_S` and as long again; more are refused."""
_VERSION: Final = b"\x01"
_MAC_BYTES: Final = 32
_BODY_AT: Final = 1 + _MAC_BYTES
_SENDER_AT: Final = 8 + NONCE_BYTES


class TicketProblem(StrEnum):
    """Why a ticket is refused. The values are fit for a metric label."""

    UNREADABLE = "unreadable"
    WRONG_MAC = "wrong_mac"  # of another secret, for another instance or another start of it, or altered
    WRONG_TIME = "wrong_time"  # too old, or of a clock that is ahead
    REPLAYED = "replayed"
    TOO_MANY = "too_many"
    TAKEN_OVER = "taken_over"  # made before this process began, or come after it has handed over


class TicketError(Exception):
    """A ticket that is refused."""

    def __init__(self, problem: TicketProblem) -> None:
        super().__init__(problem.value)
        self.problem: Final = problem


class Ticket(NamedTuple):
    """What a ticket says. ``nonce`` has `NONCE_BYTES`."""

    sender: str
    client: str
    made_at: float
    nonce: bytes


def write(ticket: Ticket, recipient: Member, secret: bytes) -> bytes:
    """Return the bytes of a ticket for ``recipient``."""
    sender = ticket.sender.encode()
    body = b"".join(
        (
            round(ticket.made_at * 1e6).to_bytes(8),
            ticket.nonce,
            len(sender).to_bytes(1),
            sender,
            ticket.client.encode(),
        )
    )
    return _VERSION + _mac(body, recipient, secret) + body


def read(raw: bytes, me: Member, secret: bytes, now: float, nonces: Nonces) -> Ticket:
    """Return what a ticket says, and take its nonce. Raises `TicketError`."""
    body = raw[_BODY_AT:]
    if raw[:1] != _VERSION or len(body) <= _SENDER_AT:
        raise TicketError(TicketProblem.UNREADABLE)
    if not hmac.compare_digest(raw[1:_BODY_AT], _mac(body, me, secret)):
        raise TicketError(TicketProblem.WRONG_MAC)
    # From here on the bytes are those that an instance has written.
    made_at, nonce = int.from_bytes(body[:8]) / 1e6, body[8:_SENDER_AT]
    client_at = _SENDER_AT + 1 + body[_SENDER_AT]
    try:
        sender, client = body[_SENDER_AT + 1 : client_at].decode(), body[client_at:].decode()
    except UnicodeDecodeError:
        raise TicketError(TicketProblem.UNREADABLE) from None
    if abs(now - made_at) > MAX_AGE_S:
        raise TicketError(TicketProblem.WRONG_TIME)
    nonces.take(nonce, made_at, now)
    return Ticket(sender, client, made_at, nonce)


def _mac(body: bytes, recipient: Member, secret: bytes) -> bytes:
    context = "\0".join(("pyry-splice", recipient.name, recipient.boot, "")).encode()
    return hmac.digest(secret, context + body, sha256)


class Nonces:
    """The nonces that were taken, for as long as a ticket with one of them could come again.

    `begin` says from when on tickets must have been made, `end` that no more are taken.
    """

    def __init__(self) -> None:
        self._latest: set[bytes] = set()
        self._earlier: set[bytes] = set()
        self._since = 0.0
        self._began_at = 0.0
        self._has_ended = False

    def begin(self, now: float) -> None:
        """Take the tickets that are made from now on: others may have been taken by another process."""
        self._began_at, self._has_ended = now, False

    def end(self) -> None:
        """Take no more: another process does."""
        self._has_ended = True

    def take(self, nonce: bytes, made_at: float, now: float) -> None:
        """Take a nonce. Raises `TicketError` if it was or may have been taken before, or if there are too many."""
        # Later, earlier tickets are too old. If the clock was set back since, what it said then counts no more.
        is_new = 0 <= now - self._began_at < 2 * MAX_AGE_S
        if self._has_ended or (is_new and made_at < self._began_at):
            raise TicketError(TicketProblem.TAKEN_OVER)
        # A ticket of a clock that is ahead can be used for twice its age.
        if not 0 <= now - self._since < 2 * MAX_AGE_S:
            self._earlier = self._latest
            self._latest = set()
            self._since = now
        if nonce in self._latest or nonce in self._earlier:
            raise TicketError(TicketProblem.REPLAYED)
        if len(self._latest) >= MAX_NONCES:
            raise TicketError(TicketProblem.TOO_MANY)
        self._latest.add(nonce)
