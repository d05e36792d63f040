"""What the relay and the child process that speaks ACME tell each other: each frame is one of these, in JSON.

The relay sends one `Request`. For an order, the child sends a `Challenge`, and goes on when the relay has sent
`Answered`. It ends with `Issued`, `Window` or `Failed`. Keys travel in these frames, and nowhere else.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from pyryrelay.config.options.acme_options import ChallengeKind

__all__ = [
    "Answered",
    "AskWindow",
    "Challenge",
    "Failed",
    "Issued",
    "Order",
    "Reply",
    "Request",
    "Window",
    "encode",
    "read_reply",
    "read_request",
]


class Order(msgspec.Struct, frozen=True, tag="order"):
    """Get a certificate for a name.

    ``email`` may be empty. The first of ``kinds`` that the authority offers is used. ``account`` is the private key of
    the account as a JWK, "" for a new account.
    """

    directory: str
    name: str
    email: str
    kinds: tuple[ChallengeKind, ...]
    account: str


class AskWindow(msgspec.Struct, frozen=True, tag="window"):
    """Ask the authority when a certificate (PEM) should be renewed (ARI, RFC 9773)."""

    directory: str
    certificate: str


Request: TypeAlias = Order | AskWindow


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """The relay answers the challenge from now on."""


class Challenge(msgspec.Struct, frozen=True, tag="challenge"):
    """A challenge that the relay must answer until the child has ended.

    For HTTP-01, ``text`` is the answer for ``token``. For TLS-ALPN-01, it is a certificate and its key in PEM.
    """

    kind: ChallengeKind
    name: str
    token: str
    text: str


class Issued(msgspec.Struct, frozen=True, tag="issued"):
    """A certificate, as PEM: first the whole chain, then the key. And the account (JWK) that it was issued to."""

    pem: str
    account: str


class Window(msgspec.Struct, frozen=True, tag="renewal"):
    """When to renew, and when to ask for that again, in seconds since 1970. None: the authority does not say."""

    renew_at: float | None
    ask_again_at: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """What went wrong, in one line for the log. It contains no key. ``account`` is "" if none was registered."""

    problem: str
    account: str = ""


Reply: TypeAlias = Challenge | Issued | Window | Failed

_requests: msgspec.json.Decoder[Request | Answered] = msgspec.json.Decoder(Order | AskWindow | Answered)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Challenge | Issued | Window | Failed)
encode = msgspec.json.Encoder().encode


def read_request(body: bytes) -> Request | Answered:
    """Read a frame from the relay. Raises `msgspec.ValidationError`, or another `msgspec.MsgspecError`."""
    return _requests.decode(body)


def read_reply(body: bytes) -> Reply:
    """Read a frame from the child. Raises `msgspec.ValidationError`, or another `msgspec.MsgspecError`."""
    return _replies.decode(body)
