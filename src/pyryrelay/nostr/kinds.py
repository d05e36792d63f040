"""Kinds of events: their classes, the address under which a version replaces another, and the kinds with a name.

PURE. Sources: NIP-01 and section 5 of the specification.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from pyryrelay.nostr.events import first_tag

if TYPE_CHECKING:
    from pyryrelay.nostr.events import Event

METADATA: Final = 0
CONTACTS: Final = 3
DELETION: Final = 5
REPOST: Final = 6
GENERIC_REPOST: Final = 16
DIRECT_MESSAGE: Final = 4
GIFT_WRAP: Final = 1059
EPHEMERAL_GIFT_WRAP: Final = 21_059
CLIENT_AUTH: Final = 22_242
HTTP_AUTH: Final = 27_235

REPOSTS: Final = frozenset({REPOST, GENERIC_REPOST})
PRIVATE_KINDS: Final = frozenset({DIRECT_MESSAGE, GIFT_WRAP, EPHEMERAL_GIFT_WRAP})
"""Kinds that are served to their parties only, unless the operator says otherwise."""
CREDENTIALS: Final = frozenset({CLIENT_AUTH, HTTP_AUTH})
"""Kinds that prove who someone is. They are never published."""


class KindClass(Enum):
    """What is kept of the events of a kind; the values are fit for metric labels."""

    REGULAR = "regular"
    """All of them."""
    REPLACEABLE = "replaceable"
    """The newest of each author and kind."""
    EPHEMERAL = "ephemeral"
    """Nothing."""
    ADDRESSABLE = "addressable"
    """The newest of each author, kind and ``d`` tag."""


def class_of(kind: int) -> KindClass:
    """Return the class of a kind; everything without a class of its own is regular."""
    if 10_000 <= kind < 20_000 or kind in (METADATA, CONTACTS):
        return KindClass.REPLACEABLE
    if 20_000 <= kind < 30_000:
        return KindClass.EPHEMERAL
    if 30_000 <= kind < 40_000:
        return KindClass.ADDRESSABLE
    return KindClass.REGULAR


def address(event: Event) -> tuple[int, str, str] | None:
    """Return kind, pubkey and ``d`` of an event that replaces older versions, or None for the other classes.

    ``d`` is element 1 of the first ``d`` tag, and empty if that has none, if there is no such tag, and for replaceable
    kinds.
    """
    kind_class = class_of(event.kind)
    if kind_class is KindClass.REPLACEABLE:
        return event.kind, event.pubkey, ""
    if kind_class is KindClass.ADDRESSABLE:
        tag = first_tag(event, "d")
        return event.kind, event.pubkey, tag[1] if tag and len(tag) > 1 else ""
    return None


def is_newer(created_at: int, event_id: str, other_created_at: int, other_id: str) -> bool:
    """Tell whether a version wins over another one: the later time, or the smaller id at the same time."""
    return (-created_at, event_id) < (-other_created_at, other_id)
