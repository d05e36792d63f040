"""Nostr's options about the database and about what stays in it. PURE.

Units: `_bytes` bytes; counts otherwise. A limit that is None is off.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pyryrelay.config.guard_options import ConnectionSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import CAP, SWITCH, choice, or_off, whole_number
from pyryrelay.nostr.options.groups import STORAGE
from pyryrelay.nostr.options.types.rules import RETENTION, RetentionRule
from pyryrelay.nostr.options.types.sets import KEYS
from pyryrelay.nostr.options.types.texts import DATABASE

Durability = Literal["full", "relaxed"]


@dataclass(frozen=True, kw_only=True)
class StorageOptions(ConnectionSettings):
    """Where events are stored, and for how long."""

    nostr_database: str = option(
        "sqlite:pyryrelay-nostr.sqlite",
        DATABASE,
        STORAGE,
        help="The database: `sqlite:PATH`, with a path relative to the run directory, or `sqlite::memory:` for trials.",
        restart=True,
        example="sqlite:/var/lib/pyryrelay/nostr.sqlite",
        why="It needs no other software.",
    )
    nostr_durability: Durability = option(
        "full",
        choice(get_args(Durability)),
        STORAGE,
        help="Whether an event is on the disk when it is answered with `OK` true (`full`), or a power failure may lose "
        "events of the last seconds (`relaxed`).",
        restart=True,
        example="relaxed",
        why="Clients take `OK` as a promise.",
    )
    nostr_share_events: bool = option(
        True,
        SWITCH,
        STORAGE,
        help="With `--cluster`, have the same events as the other Nostr relays of the cluster: what one stores, the "
        "others take in. Without `--cluster` this does nothing.",
        restart=True,
        example="false",
        why="Relays of a cluster are one relay.",
    )
    nostr_retain: tuple[RetentionRule, ...] = option(
        (),
        RETENTION,
        STORAGE,
        help="How long events of some kinds are kept, by their `created_at`, and optionally how many of each author: "
        "`1,6,7=90d,1000`, `20000-39999=1y`, `all=off,5000`. Ages are in `s`, `m`, `h`, `d`, `w` or `y`. The first "
        "rule that has a kind decides about it. Deletions (5) stay.",
        example=("7=30d", "1,6=365d,10000"),
        why="Events are kept until somebody deletes them.",
    )
    nostr_retain_pubkey: frozenset[str] = option(
        frozenset(),
        KEYS,
        STORAGE,
        help="A public key whose events are kept, whatever the rules and limits of retention say.",
        example="npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6",
        why="Only you know who should be spared.",
    )
    nostr_max_events: int | None = option(
        None,
        CAP,
        STORAGE,
        help="How many events are kept. Above that, the oldest are removed, without profiles, contact lists, deletions "
        "and other replaceable events.",
        example="10000000",
        why="A relay that forgets should say so.",
    )
    nostr_max_database_bytes: int | None = option(
        None,
        or_off(whole_number(1024 * 1024)),
        STORAGE,
        help="How large the database may be, in bytes. Above that, events are removed in the same way.",
        example="107374182400",
        why="Only you know how large your disk is.",
    )
