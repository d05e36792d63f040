"""What the command reads from a store, beside a running relay: scans, counts, exports, checks. Blocks.

The operator sees everything: private kinds, and authors that the relay hides. Only what has expired is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, time
from typing import Final

from pyryrelay.nostr.events import stored_event
from pyryrelay.nostr.filters import Filter, Matcher
from pyryrelay.nostr.storage.interface import Checked
from pyryrelay.nostr.storage.reading import ScanLimits
from pyryrelay.nostr.storage.sqlite.database import errors_translated, open_for_reading, path_of
from pyryrelay.nostr.storage.sqlite.exporting import exported
from pyryrelay.nostr.storage.sqlite.maintenance import check_store
from pyryrelay.nostr.storage.sqlite.reader import SqliteReader, open_reader
from pyryrelay.nostr.storage.visibility import View
from pyryrelay.nostr.tools.checking import check_lines

__all__ = ["check", "count", "export", "scan"]

UNLIMITED: Final = 1 << 53
STEP_BYTES: Final = 1024 * 1024
_SIGNATURES: Final = 1_000
_MAX_PROBLEMS: Final = 100


def _everything() -> View:
    return View(keys=frozenset(), private_kinds=frozenset(), wall_s=int(time()))


@contextmanager
def _reader(url: str) -> Iterator[SqliteReader]:
    reader = open_reader(url)
    try:
        yield reader
    finally:
        reader.close()


def scan(url: str, filters: Sequence[Filter]) -> Iterator[bytes]:
    """Yield the events that a REQ with these filters asks for, newest first, without the limits of the relay."""
    limits = ScanLimits(max_limit=UNLIMITED, default_limit=UNLIMITED, max_results=None, max_work=None)
    with _reader(url) as reader:
        scanning = reader.scan(filters, _everything(), limits)
        while not scanning.done:
            yield from scanning.step(_never, STEP_BYTES)


def count(url: str, filters: Sequence[Filter]) -> int:
    """Return how many events match, each counted once, whatever the limits of the filters."""
    with _reader(url) as reader:
        counting = reader.count(filters, _everything(), UNLIMITED, hll=False)
        while not counting.done:
            counting.step(_never)
        return counting.count


def export(
    url: str, filters: Sequence[Filter], since: int | None, until: int | None, *, is_reversed: bool = False
) -> Iterator[bytes]:
    """Yield all events, or those that match one of the filters, as of one moment, the oldest first.

    The times bound the filters', and limits of filters mean nothing.
    """
    rows = exported(url, since, until, is_reversed=is_reversed)
    if not filters:
        return rows
    matchers = [Matcher.of(one) for one in filters]
    return (row for row in rows if _matches(row, matchers))


def _matches(row: bytes, matchers: Sequence[Matcher]) -> bool:
    event = stored_event(row)
    return any(matcher(event) for matcher in matchers)


def check(url: str, *, is_verifying: bool = True) -> Checked:
    """Verify the file of a database, each event's id, its signature unless told otherwise, and what leads to it."""
    path = path_of(url)
    with errors_translated(path):
        database = open_for_reading(path)
        try:
            database.execute("BEGIN")
            checked = check_store(database, float("inf"), monotonic)
        finally:
            database.close()
    if is_verifying and len(checked.problems) < _MAX_PROBLEMS:
        bad = _bad_signatures(exported(url, None, None))
        if bad:
            checked.problems.append(f"signatures that do not verify: {bad}")
    return checked


def _bad_signatures(rows: Iterator[bytes]) -> int:
    bad = 0
    piece: list[bytes] = []
    for row in rows:
        piece.append(row)
        if len(piece) == _SIGNATURES:
            bad += check_lines(piece, 0).refused["signature"]
            piece = []
    return bad + check_lines(piece, 0).refused["signature"]


def _never() -> bool:
    return False
