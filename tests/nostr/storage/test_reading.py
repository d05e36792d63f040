"""The forms of the read side."""

from __future__ import annotations

from tests.support.stored_events import EVERYBODY, LIMITS, FilledStore

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.reading import Counting, ReadableStore, Scan


def test_sqlite_has_this_form() -> None:
    """The SQLite store is a readable store; mypy holds it to the signatures."""
    store: ReadableStore = FilledStore().reader
    scan: Scan = store.scan([Filter()], EVERYBODY, LIMITS)
    counting: Counting = store.count([Filter()], EVERYBODY, 10, True)
    assert (scan.snapshot, scan.work, scan.done, scan.hint, scan.over_work) == (0, 0, False, None, False)
    assert (counting.work, counting.done, counting.over_work, counting.count) == (0, False, False, 0)
    assert (counting.is_approximate, counting.hll) == (False, None)
