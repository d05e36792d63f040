"""Which events a connection may see, by id or otherwise, stored or live (spec sections 6 and 10). PURE.

Every way an event leaves the relay asks `may_see`: scans, counts, HyperLogLog, and live delivery.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from pyryrelay.nostr.events import Event, EventError, expiration, tag_values

__all__ = ["View", "may_see"]


@dataclass(frozen=True, slots=True)
class View:
    """What decides about a connection's eyes at one moment.

    Attributes:
        keys: the public keys that the connection has proved to hold.
        private_kinds: the kinds that are served to their parties only.
        wall_s: the unix time.
        hidden_authors: the authors of whom nothing is shown, because they are banned.
    """

    keys: frozenset[str]
    private_kinds: frozenset[int]
    wall_s: int
    hidden_authors: frozenset[str] = frozenset()


def may_see(event: Event, view: View) -> bool:
    """Tell whether a connection may see an event.

    Not one that is expired at that very second, not one of a hidden author, and one of a private kind only if a proved
    key is its author's or stands in any of its `p` tags. More keys never show less: an event that is seen without any
    is seen by every connection, so that live delivery has to ask only once for most events.
    """
    if event.kind in view.private_kinds and not _is_party(event, view.keys):
        return False
    return event.pubkey not in view.hidden_authors and not _is_expired(event, view.wall_s)


def _is_party(event: Event, keys: Set[str]) -> bool:
    return bool(keys) and (event.pubkey in keys or any(key in keys for key in tag_values(event, "p")))


def _is_expired(event: Event, wall_s: int) -> bool:
    """Tell whether an event has expired. A time that cannot be read, which publishing refuses, expires nothing."""
    try:
        expires_s = expiration(event)
    except EventError:
        return False
    return expires_s is not None and expires_s <= wall_s
