"""Policies about the size, the time and the kind of an event: steps 2 to 7 and 16 of the specification. PURE.

Each function takes limits and returns a policy. Units: `_s` seconds, `_bytes` bytes of UTF-8, `_chars` characters.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final, TypeAlias

from pyryrelay.nostr.events import Canonical, Event, EventError, expiration
from pyryrelay.nostr.kinds import CREDENTIALS, DELETION, KindClass, class_of
from pyryrelay.nostr.policies.refusal import (
    CONTENT_REFUSED,
    CONTENT_TOO_LONG,
    CREDENTIAL,
    EPHEMERAL_TOO_OLD,
    EVENT_TOO_LARGE,
    EXPIRATION_WRONG,
    EXPIRED,
    NOTHING_DELETED,
    PROTECTED_ONLY,
    TAG_VALUE_TOO_LONG,
    TOO_MANY_DELETED,
    TOO_MANY_INDEXED_TAGS,
    TOO_MANY_TAGS,
    TOO_NEW,
    TOO_OLD,
    Context,
    Refused,
)

EventPolicy: TypeAlias = Callable[[Event, Canonical, Context], Refused | None]
"""Returns why an event is refused, or None."""

PROTECTED: Final = ["-"]
"""The tag of events that only their authors may publish (NIP-70)."""

_MOST_BYTES_PER_CHARACTER: Final = 4


def max_bytes(most: int) -> EventPolicy:
    """Refuse events whose canonical object is longer."""
    refused = EVENT_TOO_LARGE(most)

    def policy(_event: Event, canonical: Canonical, _context: Context) -> Refused | None:
        return refused if len(canonical.json) > most else None

    return policy


def max_tags(most: int) -> EventPolicy:
    """Refuse events with more tags."""
    refused = TOO_MANY_TAGS(most)

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        return refused if len(event.tags) > most else None

    return policy


def max_tag_value_bytes(most: int) -> EventPolicy:
    """Refuse events with a longer value that would be indexed: element 1 of a tag whose name is one letter."""
    refused = TAG_VALUE_TOO_LONG(most)
    # No text of so many characters is too long.
    harmless_chars = most // _MOST_BYTES_PER_CHARACTER

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        for tag in event.tags:
            if len(tag) > 1 and len(tag[1]) > harmless_chars and is_letter(tag[0]) and len(tag[1].encode()) > most:
                return refused
        return None

    return policy


def is_letter(name: str) -> bool:
    """Tell whether the name of a tag is one ASCII letter, so that filters can ask for its values."""
    return len(name) == 1 and name.isascii() and name.isalpha()


def max_content_chars(most: int) -> EventPolicy:
    """Refuse events with longer content."""
    refused = CONTENT_TOO_LONG(most)

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        return refused if len(event.content) > most else None

    return policy


def max_indexed_tags(most: int, kinds: Container[int] | None, ignored: Container[int]) -> EventPolicy:
    """Refuse events with more tags that would be indexed; of ``kinds`` only, if given, and never of ``ignored``."""
    refused = TOO_MANY_INDEXED_TAGS(most)

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        if len(event.tags) <= most or event.kind in ignored or (kinds is not None and event.kind not in kinds):
            return None
        return refused if sum(len(tag) > 1 and is_letter(tag[0]) for tag in event.tags) > most else None

    return policy


def no_credentials(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
    """Refuse events that prove who someone is (NIP-42, NIP-98): others could use them."""
    return CREDENTIAL(event.kind) if event.kind in CREDENTIALS else None


def no_inline_media() -> EventPolicy:
    """Refuse events whose content holds images or videos as ``data:`` URLs."""
    refused = CONTENT_REFUSED()

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        content = event.content
        return refused if "data:image/" in content or "data:video/" in content else None

    return policy


def only_protected() -> EventPolicy:
    """Refuse events that are not protected (NIP-70)."""
    refused = PROTECTED_ONLY()

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        return None if PROTECTED in event.tags else refused

    return policy


def time_window(
    newer_s: float | None, older_s: float | None, ephemeral_older_s: float | None, *, spares_replaceable: bool
) -> EventPolicy:
    """Refuse events from further in the future or the past, and ephemerals that are older. None is no limit.

    Replaceable events may be as old as they like with ``spares_replaceable``.
    """
    too_new = TOO_NEW(_seconds(newer_s))
    too_old = TOO_OLD(_seconds(older_s))
    ephemeral_too_old = EPHEMERAL_TOO_OLD(_seconds(ephemeral_older_s))

    def policy(event: Event, _canonical: Canonical, context: Context) -> Refused | None:
        age_s = context.wall_s - event.created_at
        if age_s < 0:
            return too_new if newer_s is not None and -age_s > newer_s else None
        if ephemeral_older_s is not None and age_s > ephemeral_older_s and 20_000 <= event.kind < 30_000:
            return ephemeral_too_old
        if older_s is None or age_s <= older_s:
            return None
        return None if spares_replaceable and class_of(event.kind) is KindClass.REPLACEABLE else too_old

    return policy


def _seconds(limit_s: float | None) -> str:
    return "" if limit_s is None else f"{limit_s:g}" if limit_s < 1 else str(int(limit_s))


def expires_later() -> EventPolicy:
    """Refuse events that have expired, or whose expiration cannot be read (NIP-40)."""
    unreadable, expired = EXPIRATION_WRONG(), EXPIRED()

    def policy(event: Event, _canonical: Canonical, context: Context) -> Refused | None:
        try:
            expires_s = expiration(event)
        except EventError:
            return unreadable
        return expired if expires_s is not None and expires_s <= context.wall_s else None

    return policy


def deletions(most: int | None) -> EventPolicy:
    """Refuse deletions (NIP-09) that name nothing, or more events and addresses than ``most``; None is no limit."""
    nothing, too_many = NOTHING_DELETED(), TOO_MANY_DELETED(most)

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        if event.kind != DELETION:
            return None
        named = sum(bool(tag) and tag[0] in ("e", "a") for tag in event.tags)
        if not named:
            return nothing
        return too_many if most is not None and named > most else None

    return policy
