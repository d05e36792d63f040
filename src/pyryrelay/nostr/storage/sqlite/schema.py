"""The tables of the SQLite store, and the keys in them. PURE.

================  ===================================================================================================
``event``         one row for each event, with its canonical JSON; ``expires`` is its expiration, if it has one
``by_id`` ...     the indexes: ``by_id``, ``by_time``, ``by_kind``, ``by_author`` with one row for each event, and
``tag``           with one row for each different indexed tag of an event (NIP-01); each with the columns that queries
                  sort and filter by. ``tag.key`` is a hash, so whoever reads it has to compare the value itself
``recent``        the newest events, which are not in the indexes yet, with the keys of their tags one after the other
``address``       the stored version at each address of replaceable and addressable events
``gone_event``    ids that are refused: from this author, from recipients of gift wraps, from all if ``author`` is empty
``gone_address``  addresses at which versions up to a time are refused
``store``         one row: the last ``seq`` that was given away, the last one that was indexed, how often rows of
                  ``recent`` were deleted since the beginning, and how many events of each class are stored
``position``      how far events between hosts have got, by a name that only who keeps it knows
================  ===================================================================================================

An index that is written to at random places costs a page for each event. So events go into ``recent``, which only
grows at its end, and from there by the thousand into the indexes, in the order of each. Queries look into both; see
``recent``, the package. ``event``, ``address`` and what is gone are never behind.

Public keys are BLOBs of 32 bytes, times are unix seconds. Ids are whole in ``event``, in ``recent`` and where something
is gone. The indexes have their first bytes only: `ID_BYTES` sort as the whole ids do, since nobody finds two ids that
agree in 16 bytes, and who looks for an id in ``by_id``, of 8 bytes, compares the whole one in ``event``. ``event.seq``
is the ``seq`` of the interface. The version of the schema is the ``user_version`` of the file; ``UPGRADES`` leads from
each earlier one to the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from hashlib import sha256
from string import ascii_letters
from typing import Final

from pyryrelay.nostr.events import Event, EventError, expiration
from pyryrelay.nostr.kinds import address

__all__ = [
    "APPLICATION_ID",
    "COUNTERS",
    "ID_BYTES",
    "INDEXES",
    "KEY_BYTES",
    "LOOKUP_BYTES",
    "SCHEMA",
    "UPGRADES",
    "VERSION",
    "address_key",
    "event_address_key",
    "expires",
    "tag_key",
    "tag_keys",
]

APPLICATION_ID: Final = 0x7079726E
"""The bytes "pyrn" in the file's header, which distinguish it from databases of other programs."""
VERSION: Final = 3
COUNTERS: Final = ("regular", "replaceable", "addressable")
"""The columns of ``store`` that count events; they are values of ``KindClass``."""

ID_BYTES: Final = 16
"""How much of an id the indexes have that are in the order of answers."""
LOOKUP_BYTES: Final = 8
"""How much of an id ``by_id`` has."""
KEY_BYTES: Final = 17
"""The size of a tag's key."""

INDEXES: Final = ("by_id", "by_time", "by_kind", "by_author", "tag")
_CREATE_INDEXES: Final = (
    "CREATE TABLE by_id (id BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id, seq)) WITHOUT ROWID",
    """
    CREATE TABLE by_time (
        created_at INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (created_at DESC, id, seq)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE by_kind (
        kind INTEGER NOT NULL, created_at INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (kind, created_at DESC, id, seq)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE by_author (
        pubkey BLOB NOT NULL, kind INTEGER NOT NULL, created_at INTEGER NOT NULL, id BLOB NOT NULL,
        seq INTEGER NOT NULL, PRIMARY KEY (pubkey, kind, created_at DESC, id, seq)
    ) WITHOUT ROWID
    """,
    # In the order of the primary key: SQLite 3.40 would take `kind` for NULL in its checks if it came before `seq`.
    """
    CREATE TABLE tag (
        key BLOB NOT NULL, created_at INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL,
        PRIMARY KEY (key, created_at DESC, id, seq)
    ) WITHOUT ROWID
    """,
)
_CREATE_RECENT: Final = """
    CREATE TABLE recent (
        seq INTEGER PRIMARY KEY, id BLOB NOT NULL, pubkey BLOB NOT NULL, kind INTEGER NOT NULL,
        created_at INTEGER NOT NULL, keys BLOB NOT NULL
    )
    """

_CREATE_POSITION: Final = "CREATE TABLE position (name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID"

SCHEMA: Final = (
    """
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY, id BLOB NOT NULL, pubkey BLOB NOT NULL, kind INTEGER NOT NULL,
        created_at INTEGER NOT NULL, expires INTEGER, json BLOB NOT NULL
    )
    """,
    "CREATE INDEX event_expires ON event (expires) WHERE expires IS NOT NULL",
    *_CREATE_INDEXES,
    _CREATE_RECENT,
    """
    CREATE TABLE address (
        key BLOB PRIMARY KEY, created_at INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE TABLE gone_event (id BLOB NOT NULL, author BLOB NOT NULL, PRIMARY KEY (id, author)) WITHOUT ROWID",
    "CREATE TABLE gone_address (key BLOB PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE store (
        one INTEGER PRIMARY KEY CHECK (one = 1), last_seq INTEGER NOT NULL,
        regular INTEGER NOT NULL, replaceable INTEGER NOT NULL, addressable INTEGER NOT NULL,
        indexed_seq INTEGER NOT NULL DEFAULT 0, recent_removals INTEGER NOT NULL DEFAULT 0
    )
    """,
    "INSERT INTO store VALUES (1, 0, 0, 0, 0, 0, 0)",
    _CREATE_POSITION,
)

UPGRADES: Final[dict[int, Sequence[str]]] = {
    1: (
        "ALTER TABLE tag RENAME TO old_tag",
        *_CREATE_INDEXES,
        _CREATE_RECENT,
        # Each in its own order, by the index of old that has it.
        f"INSERT INTO by_id SELECT substr(id, 1, {LOOKUP_BYTES}), seq FROM event ORDER BY id",
        "DROP INDEX event_id",
        f"""
        INSERT INTO by_time SELECT created_at, substr(id, 1, {ID_BYTES}), seq FROM event
        ORDER BY created_at DESC, id
        """,
        "DROP INDEX event_time",
        f"""
        INSERT INTO by_kind SELECT kind, created_at, substr(id, 1, {ID_BYTES}), seq FROM event
        ORDER BY kind, created_at DESC, id
        """,
        "DROP INDEX event_kind",
        f"""
        INSERT INTO by_author SELECT pubkey, kind, created_at, substr(id, 1, {ID_BYTES}), seq FROM event
        ORDER BY pubkey, kind, created_at DESC, id
        """,
        "DROP INDEX event_author",
        f"""
        INSERT INTO tag SELECT key, created_at, substr(id, 1, {ID_BYTES}), seq, kind FROM old_tag
        ORDER BY key, created_at DESC, id
        """,
        "DROP TABLE old_tag",
        "ALTER TABLE store ADD COLUMN indexed_seq INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE store ADD COLUMN recent_removals INTEGER NOT NULL DEFAULT 0",
        "UPDATE store SET indexed_seq = last_seq",
    ),
    2: (_CREATE_POSITION,),
}
"""The statements that lead from a version to the next one."""

_LETTERS: Final = {letter: letter.encode() for letter in ascii_letters}


def tag_key(letter: str, value: str) -> bytes:
    """Return the key of a tag in ``tag``: the letter, and 16 bytes of the value in hex or else of its SHA-256.

    Different values may have the same key, and a sender can bring that about.
    """
    if len(value) == 64:
        with contextlib.suppress(ValueError):
            return letter.encode() + bytes.fromhex(value)[:16]
    return letter.encode() + sha256(value.encode()).digest()[:16]


def tag_keys(event: Event) -> set[bytes]:
    """Return the keys of an event's rows in ``tag``."""
    keys = set()
    # What `indexed_tags` and `tag_key` do, in a third of the time.
    for tag in event.tags:
        if len(tag) > 1 and (letter := _LETTERS.get(tag[0])):
            value = tag[1]
            if len(value) == 64:
                try:
                    keys.add(letter + bytes.fromhex(value)[:16])
                    continue
                except ValueError:
                    pass
            keys.add(letter + sha256(value.encode()).digest()[:16])
    return keys


def address_key(kind: int, pubkey: str, d: str) -> bytes:
    """Return the key of an address: equal for equal addresses, and (by SHA-256) only for these."""
    return kind.to_bytes(2, "big") + bytes.fromhex(pubkey) + (sha256(d.encode()).digest() if d else b"")


def event_address_key(event: Event) -> bytes | None:
    """Return the key of an event's address, or None if nothing replaces it."""
    found = address(event)
    return address_key(*found) if found else None


def expires(event: Event) -> int | None:
    """Return when an event expires; a time that cannot be read, which publishing refuses, expires nothing."""
    try:
        return expiration(event)
    except EventError:
        return None
