"""Sweeping in pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.support.nostr_events import make_event
from tests.support.stores import put

from pyryrelay.nostr.storage.sqlite.database import open_for_writing, path_of, remove_temporary, temporary_url
from pyryrelay.nostr.storage.sqlite.store import open_writer
from pyryrelay.nostr.storage.sqlite.sweeping import EXPIRED, PIECE, sweep_expired


def test_a_sweep_ends_when_its_time_is_up() -> None:
    """Each piece is a transaction; after each the clock decides, and the answer tells that there is more."""
    store = open_writer("sqlite::memory:")
    put(store, *(make_event(content=str(n), tags=[["expiration", str(n)]]) for n in range(3 * PIECE + 1)))
    readings = iter(range(100))
    removed, more = sweep_expired(store._database, 1_000_000, 1.0, lambda: next(readings))
    assert (len(removed), more) == (2 * PIECE, True)
    assert store.sweep(1_000_000, 0.0).more
    removed, more = store.sweep(1_000_000, 0.0)
    assert (len(removed), more) == (1, False)
    store.close()


def test_a_sweep_looks_at_expiring_events_only() -> None:
    """Finding nothing costs the same whatever is stored: it is one look-up in an index."""
    with temporary() as url:
        database = open_for_writing(path_of(url))
        ((*_, plan),) = database.execute(f"EXPLAIN QUERY PLAN {EXPIRED}", (5, 5)).fetchall()
        assert plan.startswith("SEARCH event USING COVERING INDEX event_expires")
        database.close()


@contextlib.contextmanager
def temporary() -> Iterator[str]:
    """Make a private directory for a database."""
    url = temporary_url()
    yield url
    remove_temporary(path_of(url))
