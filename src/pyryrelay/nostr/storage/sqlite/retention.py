"""Remove what is not to be kept (spec section 17): too old, too many of an author, too much in all.

A rule about ages is one look-up in an index for each piece. A rule about numbers, and the search for the oldest events,
pass over events that stay; so each goes through the store step by step, and `Retainer` remembers where it is. A pass
ends when every rule has been applied to the whole store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

from pyryrelay.nostr.kinds import CONTACTS, DELETION, METADATA
from pyryrelay.nostr.storage.interface import Retention, RetentionRule, Swept
from pyryrelay.nostr.storage.sqlite.database import transaction
from pyryrelay.nostr.storage.sqlite.deletion import remove_seqs
from pyryrelay.nostr.storage.sqlite.sweeping import PIECE

__all__ = ["Retainer"]

ALWAYS_KEPT: Final = frozenset({DELETION, 62})
KEPT_UNLESS_NAMED: Final = frozenset({METADATA, CONTACTS, *range(10_000, 20_000)})
STEP_ROWS: Final = 500
"""Index entries that are looked at between two looks at the clock."""
_ADDRESSABLE: Final = range(30_000, 40_000)
_BEGINNING: Final = (-1, b"")
_AFTER: Final = "created_at >= ? AND (created_at > ? OR id < ?) ORDER BY created_at, id DESC LIMIT ?"
"""The events behind a place, from the oldest to the newest: the order of the indexes, backwards."""
_PUBKEY: Final = "(SELECT pubkey FROM event WHERE event.seq = entry.seq)"
_KIND: Final = "(SELECT kind FROM event WHERE event.seq = entry.seq)"


class Retainer:
    """Applies a `Retention` in pieces. A new pass begins when the last one has ended, or the retention has changed.

    It only looks at events that are indexed.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._retention: Retention | None = None
        self._pass: Iterator[list[int]] = iter(())

    def work(self, retention: Retention, wall_s: int, ends_s: float, clock: Callable[[], float]) -> Swept:
        """Go on until ``clock`` shows ``ends_s``. After an error the pass begins again."""
        if self._retention != retention:
            self._retention = retention
            self._pass = _in_pieces(_candidates(self._database, retention, wall_s))
        removed: list[bytes] = []
        try:
            for seqs in self._pass:
                if seqs:
                    with transaction(self._database):
                        removed.extend(remove_seqs(self._database, seqs))
                if clock() >= ends_s:
                    return Swept(removed, True)
        except BaseException:
            self._retention = None
            raise
        self._retention = None
        return Swept(removed, False)


def _in_pieces(lists: Iterator[list[int]]) -> Iterator[list[int]]:
    """Cut lists into pieces for one transaction each; empty ones stay, as a search took its time for them, too."""
    for seqs in lists:
        for start in range(0, max(1, len(seqs)), PIECE):
            yield seqs[start : start + PIECE]


def _candidates(database: sqlite3.Connection, retention: Retention, wall_s: int) -> Iterator[list[int]]:
    """Yield lists of ``seq`` to remove, possibly empty ones, after some milliseconds of searching each."""
    decided = set(ALWAYS_KEPT)
    stored = {kind for (kind,) in database.execute(_STORED_KINDS)}
    for rule in retention.rules:
        kinds = (rule.kinds & stored) - decided
        decided |= rule.kinds
        if rule.age_s is not None:
            for kind in sorted(kinds):
                yield from _too_old(database, kind, wall_s - rule.age_s, retention.spared)
        if rule.newest is not None:
            yield from _too_many(database, kinds, rule, retention.spared)
    kept = ALWAYS_KEPT | (KEPT_UNLESS_NAMED - decided)
    if retention.max_events is not None or retention.max_bytes is not None:
        for addressable in (False, True):
            yield from _oldest(database, retention, kept, addressable=addressable)


_STORED_KINDS: Final = """
    WITH RECURSIVE found (kind) AS (
        SELECT min(kind) FROM by_kind
        UNION ALL SELECT (SELECT min(kind) FROM by_kind WHERE kind > found.kind) FROM found WHERE found.kind IS NOT NULL
    )
    SELECT kind FROM found WHERE kind IS NOT NULL
"""
"""Each kind once, by one look-up in the index."""


def _too_old(database: sqlite3.Connection, kind: int, before_s: int, spared: frozenset[bytes]) -> Iterator[list[int]]:
    """Yield events of a kind that are older, oldest first."""
    created_at, id_ = _BEGINNING
    while True:
        rows = database.execute(
            f"SELECT seq, {_PUBKEY}, created_at, id FROM by_kind AS entry"
            f" WHERE kind = ? AND created_at < ? AND {_AFTER}",
            (kind, before_s, created_at, created_at, id_, STEP_ROWS),
        ).fetchall()
        yield [seq for seq, pubkey, _, _ in rows if pubkey not in spared]
        if len(rows) < STEP_ROWS:
            return
        _, _, created_at, id_ = rows[-1]


def _too_many(
    database: sqlite3.Connection, kinds: frozenset[int], rule: RetentionRule, spared: frozenset[bytes]
) -> Iterator[list[int]]:
    """Yield the events of each author beyond the newest ones."""
    if not kinds:
        return
    listed = ",".join(map(str, sorted(kinds)))
    author = b""
    while row := database.execute("SELECT min(pubkey) FROM by_author WHERE pubkey > ?", (author,)).fetchone():
        (author,) = row
        if author is None:
            return
        if author in spared:
            continue
        found = STEP_ROWS
        while found == STEP_ROWS:
            rows = database.execute(
                f"SELECT seq FROM by_author WHERE pubkey = ? AND kind IN ({listed}) ORDER BY created_at DESC, id"
                " LIMIT ? OFFSET ?",
                (author, STEP_ROWS, rule.newest),
            ).fetchall()
            found = len(rows)
            yield [seq for (seq,) in rows]


def _oldest(
    database: sqlite3.Connection, retention: Retention, kept: frozenset[int], *, addressable: bool
) -> Iterator[list[int]]:
    """Yield the oldest events that may go, as long as there is too much."""
    created_at, id_ = _BEGINNING
    while excess := _excess(database, retention):
        rows = database.execute(
            f"SELECT seq, {_PUBKEY}, created_at, id, {_KIND} FROM by_time AS entry WHERE {_AFTER}",
            (created_at, created_at, id_, STEP_ROWS),
        ).fetchall()
        chosen = [row for row in rows if _may_go(row[4], row[1], kept, retention.spared, addressable=addressable)]
        yield [row[0] for row in chosen[:excess]]
        if len(chosen) > excess:
            _, _, created_at, id_, _ = chosen[excess - 1]
        elif len(rows) < STEP_ROWS:
            return
        else:
            _, _, created_at, id_, _ = rows[-1]


def _may_go(kind: int, pubkey: bytes, kept: frozenset[int], spared: frozenset[bytes], *, addressable: bool) -> bool:
    return kind not in kept and (kind in _ADDRESSABLE) is addressable and pubkey not in spared


def _excess(database: sqlite3.Connection, retention: Retention) -> int:
    """Return how many events too many there are; for bytes, a piece at a time."""
    excess = 0
    if retention.max_events is not None:
        (count,) = database.execute("SELECT regular + replaceable + addressable FROM store").fetchone()
        excess = max(0, count - retention.max_events)
    if retention.max_bytes is not None and used_bytes(database) > retention.max_bytes:
        excess = max(excess, PIECE)
    return excess


def used_bytes(database: sqlite3.Connection) -> int:
    """Return the size of the pages in use. Free ones are used again before the file grows."""
    pages, free, size = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
