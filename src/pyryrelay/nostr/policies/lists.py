"""Lists of kinds, authors, events, addresses and words: step 5 of the specification. PURE.

`Lists` are the values of options and files together. Deny lists win.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pyryrelay.nostr.events import Canonical, Event, tag_values
from pyryrelay.nostr.kinds import DELETION, address
from pyryrelay.nostr.policies.events import EventPolicy
from pyryrelay.nostr.policies.refusal import (
    CONTENT_REFUSED,
    EVENT_BANNED,
    KEY_BANNED,
    KIND_REFUSED,
    Context,
    Refused,
)

_VANISH: Final = 62
NEVER_REFUSED_BY_KIND: Final = frozenset({DELETION, _VANISH})
"""Kinds that a list of accepted kinds does not bind: authors can always take things back."""

_NOTHING: Final[frozenset[str]] = frozenset()
_NO_KINDS: Final[frozenset[int]] = frozenset()
_WORD: Final = re.compile(r"\w+")
_NO_WORD_AROUND: Final = re.compile(r"\A[\W_]+|[\W_]+\Z")


@dataclass(frozen=True, kw_only=True)
class Lists:
    """What is allowed and denied by name. Keys and ids are hex, words are case-folded.

    An address is ``KIND:PUBKEY:D``, ``PUBKEY:*`` or ``*:D``. An empty list of allowed kinds allows all.
    """

    allowed_keys: frozenset[str] = _NOTHING
    denied_keys: frozenset[str] = _NOTHING
    allowed_kinds: frozenset[int] = _NO_KINDS
    denied_kinds: frozenset[int] = _NO_KINDS
    denied_words: frozenset[str] = _NOTHING
    denied_events: frozenset[str] = _NOTHING
    denied_addresses: frozenset[str] = _NOTHING


def list_policies(lists: Lists, private_kinds: frozenset[int]) -> Iterator[EventPolicy]:
    """Yield the policies of those lists that are not empty. Events of ``private_kinds`` are not looked into."""
    if lists.allowed_kinds or lists.denied_kinds:
        yield kinds(lists.allowed_kinds, lists.denied_kinds)
    if lists.denied_keys:
        yield no_authors(lists.denied_keys)
    if lists.denied_events:
        yield no_events(lists.denied_events)
    if lists.denied_addresses:
        yield no_addresses(lists.denied_addresses)
    if lists.denied_words:
        yield no_words(lists.denied_words, private_kinds)


def kinds(allowed: frozenset[int], denied: frozenset[int]) -> EventPolicy:
    """Refuse denied kinds, and if there are allowed ones, all others but those that take something back."""
    accepted = allowed | NEVER_REFUSED_BY_KIND

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        kind = event.kind
        return KIND_REFUSED(kind) if kind in denied or (allowed and kind not in accepted) else None

    return policy


def no_authors(denied: frozenset[str]) -> EventPolicy:
    """Refuse events of these authors."""
    refused = KEY_BANNED()

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        return refused if event.pubkey in denied else None

    return policy


def no_events(denied: frozenset[str]) -> EventPolicy:
    """Refuse events with these ids."""
    refused = EVENT_BANNED()

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        return refused if event.id in denied else None

    return policy


def no_addresses(denied: frozenset[str]) -> EventPolicy:
    """Refuse events at these addresses."""
    refused = EVENT_BANNED()

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        place = address(event)
        if place is None:
            return None
        kind, pubkey, d = place
        return refused if not denied.isdisjoint((f"{kind}:{pubkey}:{d}", f"{pubkey}:*", f"*:{d}")) else None

    return policy


def no_words(denied: frozenset[str], private_kinds: frozenset[int]) -> EventPolicy:
    """Refuse events with one of these words, case-folded, in content or in a ``t`` tag. Whole words count.

    A text is split into its words once, whatever the number of denied ones; and once more at blanks, if there are
    denied words with other characters than letters and digits inside, such as names of hosts.
    """
    refused = CONTENT_REFUSED()
    plain = frozenset(word for word in denied if _WORD.fullmatch(word))
    others = denied - plain

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        if event.kind in private_kinds:
            return None
        text = "\n".join([event.content, *tag_values(event, "t")]).casefold()
        if not plain.isdisjoint(_WORD.findall(text)):
            return refused
        if others and not (others.isdisjoint(text.split()) and others.isdisjoint(map(_bare, text.split()))):
            return refused
        return None

    return policy


def _bare(word: str) -> str:
    """Return a word without the punctuation around it."""
    return _NO_WORD_AROUND.sub("", word)
