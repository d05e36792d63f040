"""What hosts tell each other: bodies of entries. PURE.

A body is one byte that says what it is, and the canonical JSON of an event, or a number of seconds. Bodies that begin
with another byte come from a later release, and are left out.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "AGAIN",
    "EPHEMERAL",
    "MAX_AGE_S",
    "ONLY",
    "STORED",
    "Told",
    "Wish",
    "body_of",
    "key_of",
    "told_in",
    "wish_body",
    "wish_in",
]

STORED: Final = b"e"
"""An event that a host has stored."""
EPHEMERAL: Final = b"~"
"""An event that is not stored."""
AGAIN: Final = b"<"
"""Events of so many seconds may have been lost before they were read here: announce them again."""
ONLY: Final = b"!"
"""The answer to that of a host that announces again only what it announced in so many seconds."""
MAX_AGE_S: Final = 5.0
"""Older ephemeral events are not delivered: an outage would end with a burst of what nobody waits for any more."""

MAX_DIGITS: Final = 12


class Told(NamedTuple):
    """What a body says."""

    is_ephemeral: bool
    json: bytes


class Wish(NamedTuple):
    """What an `AGAIN` says, or an `ONLY`, if ``is_answer``. ``seconds`` count back from when it was announced."""

    is_answer: bool
    seconds: int


def body_of(json: bytes, *, is_ephemeral: bool = False) -> bytes:
    """Return the body of an event."""
    return (EPHEMERAL if is_ephemeral else STORED) + json


def key_of(body: bytes) -> bytes:
    """Return the key of a body, which is the id of its event."""
    return body[8:72]


def told_in(body: bytes) -> Told | None:
    """Return what a body says; None if this release does not know it."""
    what = body[:1]
    return Told(what == EPHEMERAL, body[1:]) if what in (STORED, EPHEMERAL) and what else None


def wish_body(what: bytes, seconds: int) -> bytes:
    """Return the body of an `AGAIN` or an `ONLY`."""
    return b"%b%d" % (what, seconds)


def wish_in(body: bytes) -> Wish | None:
    """Return the wish that a body is; None for events, and for what this release does not know."""
    what, digits = body[:1], body[1:]
    if what not in (AGAIN, ONLY) or not what or len(digits) > MAX_DIGITS or not digits.isdigit():
        return None
    return Wish(what == ONLY, int(digits))
