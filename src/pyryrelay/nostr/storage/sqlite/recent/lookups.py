"""The readers' part: entries of recent events, kept in memory as the indexes would have them.

Each reader reads the rows of ``recent`` that it has not seen, when a query needs them, and sorts them by what queries
ask for. There are some thousand of them at most.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from pyryrelay.nostr.storage.sqlite.schema import ID_BYTES, KEY_BYTES

__all__ = ["UNKNOWN_KIND", "Entry", "RecentEntries", "RecentKnown"]

Entry: TypeAlias = tuple[int, bytes, int, int]
"""``(-created_at, first bytes of the id, seq, kind)``"""
Group: TypeAlias = tuple[bytes | int, ...]
"""What the entries of a range have in common: a kind, a key of a tag, an author and a kind, or nothing."""

UNKNOWN_KIND: Final = -1
"""The kind in entries of the range of all events."""

_STATE: Final = "SELECT indexed_seq, recent_removals, last_seq FROM store"
_ROWS: Final = "SELECT seq, id, pubkey, kind, created_at, keys FROM recent WHERE seq > ?"
_IDS: Final = "SELECT id FROM recent WHERE seq > ?"
_Row: TypeAlias = tuple[int, bytes, bytes, int, int, bytes]


class RecentEntries:
    """The entries of recent events by id and by `Group`. They are those that the indexes would have."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._state = (-1, -1)
        self._seen = 0
        self._rows: dict[int, _Row] = {}
        self._by_id: dict[bytes, Entry] = {}
        self._groups: dict[Group, list[Entry]] = {}
        self._unsorted: set[Group] = set()
        self._kinds: dict[bytes | int | None, dict[int, int]] = {None: {}}
        """How many events there are of each kind, of an author and (None) of all."""

    def update(self) -> None:
        """Catch up with the table, within the read transaction that the look-ups belong to."""
        indexed, removals, last = self._database.execute(_STATE).fetchone()
        if (indexed, removals) != self._state:
            if indexed == self._state[0]:
                self._remove_missing()
            else:
                self._clear(indexed)
            self._state = indexed, removals
        if last > self._seen:
            for row in self._database.execute(_ROWS, (self._seen,)).fetchall():
                self._add(row)
            self._seen = last

    def by_id(self, event_id: bytes | int) -> list[Entry]:
        """Return the entry of an event, if it is recent."""
        entry = self._by_id.get(event_id) if isinstance(event_id, bytes) else None
        return [] if entry is None else [entry]

    def first(self, group: Group, until: int, since: int, count: int) -> list[Entry]:
        """Return up to ``count`` entries of a group from a time on, in the order of answers."""
        entries = self._sorted(group)
        start = bisect_left(entries, (-until,)) if entries else 0
        return self._cut(entries, start, since, count)

    def after(self, group: Group, place: tuple[int, bytes], since: int, count: int) -> list[Entry]:
        """Return up to ``count`` entries of a group that come after a place, which is a time and an id."""
        entries = self._sorted(group)
        start = bisect_right(entries, (-place[0], place[1]), key=_place) if entries else 0
        return self._cut(entries, start, since, count)

    def among(self, groups: Sequence[Group]) -> list[int]:
        """Return the numbers of those groups that have entries."""
        there = self._groups
        return [number for number, group in enumerate(groups) if group in there]

    def next_kind(self, above: int) -> int | None:
        """Return the least kind above ``above`` of recent events."""
        return min((kind for kind in self._kinds[None] if kind > above), default=None)

    def kinds_of(self, author: bytes | int, above: int) -> list[int]:
        """Return the kinds above ``above`` of an author's recent events, in no order."""
        return [kind for kind in self._kinds.get(author, ()) if kind > above]

    def _sorted(self, group: Group) -> list[Entry]:
        entries = self._groups.get(group)
        if not entries:
            return []
        if group in self._unsorted:
            entries.sort()
            self._unsorted.discard(group)
        return entries

    @staticmethod
    def _cut(entries: list[Entry], start: int, since: int, count: int) -> list[Entry]:
        found = entries[start : start + count]
        while found and -found[-1][0] < since:
            del found[bisect_left(found, (1 - since,)) :]
        return found

    def _clear(self, indexed: int) -> None:
        self._seen = indexed
        for content in (self._rows, self._by_id, self._groups, self._unsorted, self._kinds):
            content.clear()
        self._kinds[None] = {}

    def _add(self, row: _Row) -> None:
        seq, id_, pubkey, kind, created_at, _ = row
        self._rows[seq] = row
        entry = -created_at, id_[:ID_BYTES], seq, kind
        self._by_id[id_] = entry
        for group in _groups(row):
            self._groups.setdefault(group, []).append(_in_group(entry, group))
            self._unsorted.add(group)
        for kinds in (self._kinds.setdefault(pubkey, {}), self._kinds[None]):
            kinds[kind] = kinds.get(kind, 0) + 1

    def _remove_missing(self) -> None:
        there = {seq for (seq,) in self._database.execute("SELECT seq FROM recent")}
        for seq in [seq for seq in self._rows if seq not in there]:
            row = self._rows.pop(seq)
            _, id_, pubkey, kind, _, _ = row
            entry = self._by_id.pop(id_)
            for group in _groups(row):
                entries = self._groups[group]
                entries.remove(_in_group(entry, group))
                if not entries:
                    del self._groups[group]
                    self._unsorted.discard(group)
            for kinds in (self._kinds[pubkey], self._kinds[None]):
                kinds[kind] -= 1
                if not kinds[kind]:
                    del kinds[kind]


class RecentKnown:
    """The ids of recent events, for those who ask for nothing else."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._state = (-1, -1)
        self._seen = 0
        self._ids: set[bytes] = set()

    def of(self, ids: Iterable[bytes]) -> set[bytes]:
        """Return which of these events are recent, within a read transaction."""
        indexed, removals, last = self._database.execute(_STATE).fetchone()
        if (indexed, removals) != self._state:
            self._state = indexed, removals
            self._seen = indexed
            self._ids.clear()
        if last > self._seen:
            self._ids.update(id_ for (id_,) in self._database.execute(_IDS, (self._seen,)))
            self._seen = last
        return self._ids.intersection(ids)


def _groups(row: _Row) -> Iterator[Group]:
    """Yield the groups of an event, each once."""
    _, _, pubkey, kind, _, keys = row
    yield ()
    yield (kind,)
    yield pubkey, kind
    for start in range(0, len(keys), KEY_BYTES):
        yield (keys[start : start + KEY_BYTES],)


def _in_group(entry: Entry, group: Group) -> Entry:
    return entry if group else (*entry[:3], UNKNOWN_KIND)


def _place(entry: Entry) -> tuple[int, bytes]:
    return entry[:2]
