"""Protected events (NIP-70), and reposts of them: steps 13 and 16 of the specification. PURE."""

from __future__ import annotations

from typing import Any

import msgspec

from pyryrelay.nostr.events import Canonical, Event
from pyryrelay.nostr.kinds import REPOSTS
from pyryrelay.nostr.policies.events import PROTECTED, EventPolicy
from pyryrelay.nostr.policies.refusal import (
    AUTHOR_ONLY,
    AUTHOR_ONLY_AUTH,
    PROTECTED_REFUSED,
    PROTECTED_REPOST,
    Context,
    Refused,
)


class _Reposted(msgspec.Struct, gc=False):
    """The part of a reposted event that matters."""

    tags: Any = None


_decode = msgspec.json.Decoder(_Reposted).decode


def only_by_author(*, are_accepted: bool) -> EventPolicy:
    """Refuse protected events unless their author has authenticated; all of them unless they are accepted at all."""
    refused, needs_auth, restricted = PROTECTED_REFUSED(), AUTHOR_ONLY_AUTH(), AUTHOR_ONLY()

    def policy(event: Event, _canonical: Canonical, context: Context) -> Refused | None:
        if PROTECTED not in event.tags:
            return None
        if not are_accepted:
            return refused
        if event.pubkey in context.keys:
            return None
        return restricted if context.keys else needs_auth

    return policy


def no_protected_reposts() -> EventPolicy:
    """Refuse reposts whose content is a protected event."""
    refused = PROTECTED_REPOST()

    def policy(event: Event, _canonical: Canonical, _context: Context) -> Refused | None:
        return refused if event.kind in REPOSTS and holds_protected(event.content) else None

    return policy


def holds_protected(content: str) -> bool:
    """Tell whether a text is a JSON object with ``tags`` that protect it.

    An object that nests too deep to be read counts as one: it may be.
    """
    if not content.lstrip().startswith("{"):
        return False
    try:
        tags = _decode(content).tags
    except RecursionError:
        return True
    except ValueError:
        return False
    return isinstance(tags, list) and PROTECTED in tags
