"""Nostr's options about who may write and read, and about authentication (NIP-42). PURE.

A cap that is None is off. Keys are hex.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import CAP, SWITCH, choice
from pyryrelay.nostr.kinds import PRIVATE_KINDS
from pyryrelay.nostr.options.groups import ACCESS
from pyryrelay.nostr.options.types.kinds import KINDS
from pyryrelay.nostr.options.types.sets import KEYS

WriteAccess = Literal["open", "auth", "allowed-authors", "allowed-clients"]
ReadAccess = Literal["open", "auth", "allowed-clients"]
AuthChallenge = Literal["needed", "connect"]


@dataclass(frozen=True, kw_only=True)
class AccessOptions(ConnectionSettings):
    """Who may write and read."""

    nostr_write: WriteAccess = option(
        "open",
        choice(get_args(WriteAccess)),
        ACCESS,
        help="Who may publish: everybody, authenticated clients (`auth`), anybody events of authors on the allow list "
        "(`allowed-authors`), or clients that have authenticated a key on the allow list, events of any author "
        "(`allowed-clients`). The allow list is that of `--nostr-allow-pubkey`.",
        example="allowed-authors",
        why="Quotas bound what strangers can do.",
    )
    nostr_read: ReadAccess = option(
        "open",
        choice(get_args(ReadAccess)),
        ACCESS,
        help="Who may ask for events, in the same way.",
        example="auth",
        why="Notes are public.",
    )
    nostr_open_kinds: frozenset[int] = option(
        frozenset(),
        KINDS,
        ACCESS,
        help="A kind, or a range of kinds, that everybody may publish, whatever `--nostr-write` says.",
        example=("10002", "10050"),
        why="Only you know which kinds of strangers your relay should keep.",
    )
    nostr_inbox: bool = option(
        False,
        SWITCH,
        ACCESS,
        help="Accept gift wraps (encrypted messages, NIP-59) from everybody for keys on the allow list, whatever "
        "`--nostr-write` says.",
        example="true",
        why="Gift wraps have random authors, so quotas of authors do not bind them.",
    )
    nostr_giftwrap_auth: bool = option(
        False,
        SWITCH,
        ACCESS,
        help="Accept gift wraps (kinds 1059 and 21059) from authenticated clients only.",
        example="true",
        why="Authentication tells the relay who sends to whom, which gift wraps are meant to hide.",
    )
    nostr_trusted: frozenset[str] = option(
        frozenset(),
        KEYS,
        ACCESS,
        help="A public key whose clients, once they have authenticated it, are exempt from the quotas of events, "
        "filters and work. Sizes and times bind them too.",
        example="npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6",
        why="Nobody is trusted by default. It is meant for your own bots, and for relays that copy from this one.",
    )
    nostr_private_kinds: frozenset[int] = option(
        PRIVATE_KINDS,
        KINDS,
        ACCESS,
        help="A kind, or a range of kinds, whose events are served to their authors and to the keys in their `p` tags "
        "only, once these have authenticated. Without authentication they are served to nobody.",
        example=("4", "1059", "21059", "1060"),
        why="Direct messages (4) and gift wraps (1059, 21059) tell who writes to whom and when.",
    )
    nostr_auth_challenge: AuthChallenge = option(
        "needed",
        choice(get_args(AuthChallenge)),
        ACCESS,
        help="When to ask clients to authenticate: before the first answer that needs it, or when they connect.",
        example="connect",
        why="Many clients sign at once when they are asked, and tell who they are for nothing.",
    )
    nostr_max_auth_keys: int | None = option(
        16,
        CAP,
        ACCESS,
        help="How many keys one connection may authenticate.",
        example="100",
        why="People have a few accounts.",
    )
    nostr_payment_required: bool = option(
        False,
        SWITCH,
        ACCESS,
        help="Tell clients that publishing needs a payment: in the information document, and in the refusal of those "
        "who may not publish, with `--nostr-payments-url`. The relay takes no payments itself.",
        example="true",
        why="It has to be true.",
    )
