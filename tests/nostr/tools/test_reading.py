"""What the command reads: scans and counts without the relay's limits, filtered exports, checks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.signed_events import WALL_S, Author, forged

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.sqlite.store import open_writer
from pyryrelay.nostr.tools import reading

ALICE, BOB = Author("alice"), Author("bob")
NOTES = [ALICE.line(str(number), created_at=WALL_S + number) for number in range(1200)]
PRIVATE = BOB.line("secret", kind=4, created_at=WALL_S - 1, tags=[["p", ALICE.pubkey], ["t", "x"]])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with many notes and a private message."""
    return filled(tmp_path_factory.mktemp("store"), [*NOTES, PRIVATE])


def filled(directory: Path, lines: list[bytes]) -> str:
    """Return the URL of a database with these events."""
    found = f"sqlite:{directory / 'events.sqlite'}"
    store = open_writer(found)
    half = len(lines) - len(lines) // 2
    store.write(lines[:half], received_s=WALL_S)
    store.tend(is_idle=True)
    store.write(lines[half:], received_s=WALL_S)
    store.close()
    return found


def test_a_scan_has_no_limits_but_its_own(url: str) -> None:
    """Everything is found, newest first, private kinds too; a limit in a filter holds."""
    assert list(reading.scan(url, [Filter()])) == [*NOTES[::-1], PRIVATE]
    assert list(reading.scan(url, [Filter(limit=2), Filter(kinds=(4,))])) == [NOTES[-1], NOTES[-2], PRIVATE]
    assert list(reading.scan(url, [Filter(authors=(BOB.pubkey,))])) == [PRIVATE]


def test_a_count_ignores_limits(url: str) -> None:
    """Each event is counted once, whatever the limits."""
    assert reading.count(url, [Filter(limit=1)]) == 1201
    assert reading.count(url, [Filter(kinds=(4,)), Filter(authors=(BOB.pubkey,))]) == 1
    assert reading.count(url, [Filter(kinds=(7,))]) == 0


def test_an_export_of_what_matches(url: str) -> None:
    """Filters choose what is exported, the times bound them, and their limits mean nothing."""
    assert list(reading.export(url, [], None, None)) == [PRIVATE, *NOTES]
    assert list(reading.export(url, [Filter(tags=(("t", ("x",)),), limit=0)], None, None)) == [PRIVATE]
    found = reading.export(url, [Filter(kinds=(1, 4), until=WALL_S + 1)], WALL_S, None, is_reversed=True)
    assert list(found) == [NOTES[1], NOTES[0]]


def test_a_sound_database_has_no_problems(url: str) -> None:
    """A check looks at every event."""
    checked = reading.check(url)
    assert (checked.events, checked.problems) == (1201, [])


def test_wrong_signatures_are_found(tmp_path: Path) -> None:
    """Events with forged signatures are reported, unless signatures are left out."""
    url = filled(tmp_path, [forged(ALICE.line("a")), ALICE.line("b")])
    assert reading.check(url).problems == ["signatures that do not verify: 1"]
    assert reading.check(url, is_verifying=False).problems == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [("DELETE FROM tag", "a tag does not lead to it"), ("UPDATE event SET kind = 2", "columns")],
)
def test_damage_is_found(tmp_path: Path, statement: str, problem: str) -> None:
    """Events that indexes do not lead to, or that differ from their columns, are reported without content."""
    url = filled(tmp_path, [ALICE.line("private", tags=[["t", "x"]])])
    with sqlite3.connect(url.removeprefix("sqlite:")) as database:
        database.execute(statement)
    database.close()
    problems = reading.check(url).problems
    assert any(problem in line for line in problems)
    assert not any("private" in line for line in problems)


@pytest.mark.parametrize("read", [reading.check, lambda url: reading.count(url, [Filter()])])
def test_a_database_that_is_not_there(tmp_path: Path, read: Callable[[str], object]) -> None:
    """A missing database is an error of one line."""
    with pytest.raises(Exception, match="cannot be opened"):
        read(f"sqlite:{tmp_path / 'no.sqlite'}")
