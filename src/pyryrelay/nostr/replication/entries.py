"""What hosts tell each other: bodies of entries. PURE.

A body is one byte that says what it is, and the canonical JSON of an event. Bodies that begin with another byte come
from a later release, and are left out.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["EPHEMERAL", "MAX_AGE_S", "STORED", "Told", "body_of", "key_of", "told_in"]

STORED: Final = b"e"
"""An event that a host has stored."""
EPHEMERAL: Final = b"~"
"""An event that is not stored."""
MAX_AGE_S: Final = 5.0
"""Older ephemeral events are not delivered: an outage would end with a burst of what nobody waits for any more."""


class Told(NamedTuple):
    """What a body says."""

    is_ephemeral: bool
    json: bytes


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
