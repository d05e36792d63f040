"""Filters and times of the command line."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError

import pytest

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.tools.arguments import filter_argument, time_argument


def test_a_filter_is_json() -> None:
    """A filter is written as in REQ."""
    assert filter_argument('{"kinds":[1],"#t":["x"],"limit":10}') == Filter(kinds=(1,), tags=(("t", ("x",)),), limit=10)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kinds":1}', '{"search":"x"}', '{"\udc80":1}'])
def test_what_is_no_filter(text: str) -> None:
    """Anything else is a wrong command line, and the error shows how to write one."""
    with pytest.raises(ArgumentTypeError, match=r'\{"kinds":\[1\],"limit":10\}'):
        filter_argument(text)


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("0", 0),
        ("1700000000", 1_700_000_000),
        ("2023-11-14", 1_699_920_000),
        ("2023-11-14T22:13:20", 1_700_000_000),
        ("2023-11-14T22:13:20+00:00", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("1960-01-01", 0),
        ("9" * 30, 2**53 - 1),
    ],
)
def test_times(text: str, time_s: int) -> None:
    """A time is a unix time, or a date or time of UTC unless it says otherwise; bounded as those of events are."""
    assert time_argument(text) == time_s


@pytest.mark.parametrize(
    ("text", "age_s"), [("0s", 0), ("90s", 90), ("5m", 300), ("2h", 7200), ("2d", 172_800), ("1w", 604_800)]
)
def test_ages(monkeypatch: pytest.MonkeyPatch, text: str, age_s: int) -> None:
    """A number with a unit is a time before now."""
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.5)
    monkeypatch.setattr("pyryrelay.nostr.tools.arguments.time", time.time)
    assert time_argument(text) == 1_700_000_000 - age_s


@pytest.mark.parametrize("text", ["", "-1", "yesterday", "2h30m", "2023-13-01", "1.5", "\u0661"])
def test_what_is_no_time(text: str) -> None:
    """Anything else is a wrong command line."""
    with pytest.raises(ArgumentTypeError, match="is not a time"):
        time_argument(text)
