"""Remove expired events (NIP-40) in pieces."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from pyryrelay.nostr.storage.interface import Swept
from pyryrelay.nostr.storage.sqlite.database import transaction
from pyryrelay.nostr.storage.sqlite.deletion import remove_seqs

__all__ = ["EXPIRED", "PIECE", "remove_in_pieces", "sweep_expired"]

PIECE: Final = 50
"""Events of one transaction: some milliseconds."""
EXPIRED: Final = "SELECT seq FROM event WHERE expires IS NOT NULL AND expires <= ? ORDER BY expires LIMIT ?"


def sweep_expired(database: sqlite3.Connection, wall_s: int, ends_s: float, clock: Callable[[], float]) -> Swept:
    """Remove events that have expired at ``wall_s``, until ``clock`` shows ``ends_s``; at least one piece of them."""

    def expired(limit: int) -> list[int]:
        return [seq for (seq,) in database.execute(EXPIRED, (wall_s, limit))]

    return remove_in_pieces(database, expired, ends_s, clock)


def remove_in_pieces(
    database: sqlite3.Connection, find: Callable[[int], list[int]], ends_s: float, clock: Callable[[], float]
) -> Swept:
    """Remove what ``find`` returns, which is up to so many ``seq``, until it returns none or time is up."""
    removed: list[bytes] = []
    while True:
        with transaction(database):
            seqs = find(PIECE)
            removed.extend(remove_seqs(database, seqs))
        if len(seqs) < PIECE:
            return Swept(removed, False)
        if clock() >= ends_s:
            return Swept(removed, True)
