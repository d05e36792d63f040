"""The parts of the page of results."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _page import fill, percentile, read_row, readable, short_table, spread, tables, tally
from _results import Row, as_json

PAGE = (
    "# Title\n\n<!-- generated: one -->\nold\n<!-- end: one -->\n\ntext\n\n<!-- generated: two -->\n<!-- end: two -->\n"
)
MET = Row("upgrade", "µs", {"ours": [3.0, 1.0, 2.0], "other": [8.0]}, "at most 1/2 x other", baseline="other")
MISSED = Row("frames", "a second", {"ours": [5.0]}, "at least 6", "higher")
OPEN = Row("memory", "bytes", {"ours": [], "other": [2.0]}, "at most 7", note="left out")


@given(values=st.lists(st.floats(-1e9, 1e9), min_size=1), percent=st.integers(1, 100))
def test_percentile_is_the_smallest_that_is_enough(values: list[float], percent: int) -> None:
    """At least the given share of the values is not above the percentile, and fewer are below it."""
    found = percentile(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_percentile_of_nothing() -> None:
    """There is no percentile of no values."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_fill_replaces_what_is_generated() -> None:
    """Only the named part changes, and filling in the same text again changes nothing."""
    filled = fill(PAGE, {"one": "new\n"})
    assert filled == PAGE.replace("\nold\n", "\n\nnew\n\n")
    assert fill(filled, {"one": "new"}) == filled


@pytest.mark.parametrize(
    "page",
    ["", PAGE + PAGE, PAGE.replace("<!-- end: one -->", ""), "<!-- end: one --> <!-- generated: one -->"],
    ids=["none", "twice", "open", "reversed"],
)
def test_fill_wants_one_place(page: str) -> None:
    """A page must have exactly one place for a part."""
    with pytest.raises(ValueError, match="'one'"):
        fill(page, {"one": "new"})


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "-"), ([2.0], "2"), ([1.0, 1234.5, 3.0], "3 (1 to 1,234)")],
)
def test_spread(values: Sequence[float], text: str) -> None:
    """A spread begins with the median; the median of one value is the value."""
    assert spread(values) == text


def test_short_table() -> None:
    """Each row is one line with the relay apart from the other contestants, and notes are below."""
    lines = short_table([MET, MISSED, OPEN]).splitlines()
    assert lines[2] == "| upgrade | µs | 2 (1 to 3) | other 8 | 0.25 | at most 1/2 x other: met |"
    assert lines[3] == "| frames | a second | 5 |  |  | at least 6: **missed** |"
    assert lines[4] == "| memory | bytes | - | other 2 |  | at most 7: not judged |"
    assert lines[5:] == ["", "* memory: left out."]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("at least 1e6", "at least 1,000,000"),
        ("at most 1/7 x plain Autobahn; at most 2.30", "at most 1/7 x plain Autobahn; at most 2.3"),
    ],
)
def test_targets_are_readable(target: str, text: str) -> None:
    """Numbers are written as people read them, and words stay."""
    assert readable(target) == text


def test_tally() -> None:
    """Rows without a verdict count neither way, and rows that missed are named."""
    text = tally([MET, MISSED, OPEN])
    assert text.startswith("1 of 2 targets are met.\n")
    assert "* frames: 5 a second, but the target is at least 6." in text
    assert tally([MET]) == "1 of 1 targets are met.\n"


@pytest.mark.parametrize("row", [MET, MISSED, OPEN], ids=lambda row: row.name)
def test_rows_survive_json(row: Row) -> None:
    """The page is made from rows that scripts saved as JSON."""
    assert read_row(json.loads(json.dumps(as_json(row)))) == row


def test_tables_alone() -> None:
    """Only the tables are kept of what a script printed."""
    text = "Linux 6\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nabove | that\n"
    assert tables(text) == "| a | b |\n|---|---|\n| 1 | 2 |\n"
