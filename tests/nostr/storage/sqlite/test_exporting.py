"""Exports: everything of a time range, in order, as of one moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.signed_events import WALL_S, Author

from pyryrelay.nostr.storage.interface import StoreError
from pyryrelay.nostr.storage.sqlite.exporting import exported
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer

ALICE = Author("alice")
LINES = [ALICE.line(str(number), created_at=WALL_S + number) for number in range(10)]


@pytest.fixture(params=[0, 4, 10])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with ten events, so many of which are indexed."""
    found = f"sqlite:{tmp_path / 'events.sqlite'}"
    store = open_writer(found)
    shuffled = LINES[5:] + LINES[:5]
    store.write(shuffled[: request.param], received_s=WALL_S)
    store.tend(is_idle=True)
    store.write(shuffled[request.param :], received_s=WALL_S)
    store.close()
    return found


def test_the_oldest_comes_first_or_the_newest(url: str) -> None:
    """Events come in the order of their times."""
    assert list(exported(url, None, None)) == LINES
    assert list(exported(url, None, None, is_reversed=True)) == LINES[::-1]


def test_both_times_are_included(url: str) -> None:
    """A range has the events of its first and its last second."""
    assert list(exported(url, WALL_S + 2, WALL_S + 4)) == LINES[2:5]
    assert list(exported(url, WALL_S + 4, WALL_S + 2)) == []


def test_events_of_one_second_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    """The order is the same each time, whatever the order of arrival."""
    url = f"sqlite:{tmp_path / 'events.sqlite'}"
    same = [ALICE.line(str(number)) for number in range(20)]
    store = open_writer(url)
    store.write(same[:10], received_s=WALL_S)
    store.tend(is_idle=True)
    store.write(same[10:], received_s=WALL_S)
    store.close()
    assert list(exported(url, None, None)) == sorted(same)
    assert list(exported(url, None, None, is_reversed=True)) == sorted(same)


def test_what_is_stored_meanwhile_is_not_seen(url: str) -> None:
    """An export is a snapshot: events that come and go after its begin change nothing."""
    store: SqliteWriter = open_writer(url)
    try:
        rows = exported(url, None, None)
        first = next(rows)
        store.write([ALICE.line("late", created_at=WALL_S + 5)], received_s=WALL_S)
        store.delete([bytes.fromhex(ALICE.event("9", created_at=WALL_S + 9).id)], forever=False)
        assert [first, *rows] == LINES
        assert len(list(exported(url, None, None))) == 10
    finally:
        store.close()


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    """A missing database is an error of one line, and is not created."""
    with pytest.raises(StoreError, match="cannot be opened"):
        list(exported(f"sqlite:{tmp_path / 'no.sqlite'}", None, None))
    assert list(tmp_path.iterdir()) == []
