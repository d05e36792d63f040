"""What hosts tell each other: bodies of entries. PURE.

A body is one byte that says what it is, and the canonical JSON of an event, or one or two numbers of seconds. Bodies
that begin with another byte come from a later release, and are left out.
"""

from __future__ import annotations

import re
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
"""Events of so many seconds may have been lost before they were read here: announce them again.

With two numbers: events that were added between so many seconds ago were forgotten before they were read here.
"""
ONLY: Final = b"!"
"""The answer to that of a host that announces again only what it announced in so many seconds.

With two numbers: what it had announced between so many seconds ago it has announced again just now.
"""
MAX_AGE_S: Final = 5.0
"""Older ephemeral events are not delivered: an outage would end with a burst of what nobody waits for any more."""

_NUMBERS: Final = re.compile(rb"([0-9]{1,12})(?: ([0-9]{1,12}))?")


class Told(NamedTuple):
    """What a body says."""

    is_ephemeral: bool
    json: bytes


class Wish(NamedTuple):
    """What an `AGAIN` says, or an `ONLY`, if ``is_answer``. Seconds count back from when it was announced.

    ``until`` is the second number, None if there is none.
    """

    is_answer: bool
    seconds: int
    until: int | None = None


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


def wish_body(what: bytes, seconds: int, until: int | None = None) -> bytes:
    """Return the body of an `AGAIN` or an `ONLY`."""
    return b"%b%d" % (what, seconds) if until is None else b"%b%d %d" % (what, seconds, until)


def wish_in(body: bytes) -> Wish | None:
    """Return the wish that a body is; None for events, and for what this release does not know."""
    numbers = _NUMBERS.fullmatch(body, 1) if body[:1] in (AGAIN, ONLY) else None
    if numbers is None:
        return None
    since, until = numbers.groups()
    return Wish(body[:1] == ONLY, int(since), None if until is None else int(until))
