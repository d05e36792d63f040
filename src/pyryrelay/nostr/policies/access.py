"""Who may write and who may read: step 14 and section 14 of the specification. PURE.

Keys are hex. A client without an authenticated key is asked to authenticate where that could help.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final, TypeAlias

from pyryrelay.nostr.events import Canonical, Event, tag_values
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.kinds import EPHEMERAL_GIFT_WRAP, GIFT_WRAP
from pyryrelay.nostr.policies.events import EventPolicy
from pyryrelay.nostr.policies.refusal import (
    GIFT_WRAP_AUTH,
    PRIVATE,
    READ_AUTH,
    READ_REFUSED,
    REGISTER,
    WRITE_AUTH,
    WRITE_REFUSED,
    Context,
    Refused,
)

FilterPolicy: TypeAlias = Callable[[Sequence[Filter], Context], Refused | None]
"""Returns why the filters of a message are refused, or None."""

GIFT_WRAPS: Final = frozenset({GIFT_WRAP, EPHEMERAL_GIFT_WRAP})


def writers(
    access: str,
    allowed: frozenset[str],
    open_kinds: Container[int],
    *,
    has_inbox: bool = False,
    register_url: str = "",
) -> EventPolicy:
    """Refuse events of those who may not write. ``access`` is a value of ``--nostr-write`` other than ``open``.

    Kinds in ``open_kinds`` are anybody's, and with an inbox gift wraps to allowed keys. With ``register_url``, those
    who may not write are told to go there.
    """
    needs_auth = WRITE_AUTH()
    refused = REGISTER(register_url) if register_url else WRITE_REFUSED()

    def policy(event: Event, _canonical: Canonical, context: Context) -> Refused | None:
        if event.kind in open_kinds:
            return None
        if access == "allowed-authors":
            answer = None if event.pubkey in allowed else refused
        elif not context.keys:
            answer = needs_auth
        else:
            answer = None if access == "auth" or not allowed.isdisjoint(context.keys) else refused
        if answer is not None and has_inbox and event.kind in GIFT_WRAPS:
            return answer if allowed.isdisjoint(tag_values(event, "p")) else None
        return answer

    return policy


def authenticated_gift_wraps() -> EventPolicy:
    """Refuse gift wraps (NIP-59) of clients that have not authenticated: their one-time keys escape quotas by key."""
    refused = GIFT_WRAP_AUTH()

    def policy(event: Event, _canonical: Canonical, context: Context) -> Refused | None:
        return refused if event.kind in GIFT_WRAPS and not context.keys else None

    return policy


def readers(access: str, allowed: frozenset[str]) -> FilterPolicy:
    """Refuse filters of those who may not read. ``access`` is a value of ``--nostr-read`` other than ``open``."""
    needs_auth, refused = READ_AUTH(), READ_REFUSED()

    def policy(_filters: Sequence[Filter], context: Context) -> Refused | None:
        if not context.keys:
            return needs_auth
        return refused if access == "allowed-clients" and allowed.isdisjoint(context.keys) else None

    return policy


def private(kinds: frozenset[int]) -> FilterPolicy:
    """Refuse clients that have not authenticated and ask, with each of their filters, for private kinds only."""
    refused = PRIVATE()

    def policy(filters: Sequence[Filter], context: Context) -> Refused | None:
        if context.keys or not all(one.kinds and kinds.issuperset(one.kinds) for one in filters):
            return None
        return refused

    return policy
