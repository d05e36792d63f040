"""The arithmetic of the benchmarks: the order of runs, the meaning of targets, and the table."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import pytest

from _results import Row, alternate, publish, table


def test_contestants_take_turns_and_every_other_round_is_backwards() -> None:
    """Contestants take turns and every other round is reversed, so that drift hits all alike."""
    turns: list[str] = []

    def contestant(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    found = alternate(3, {name: partial(contestant, name) for name in "ab"})
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


@pytest.mark.parametrize(
    ("target", "met"),
    [
        ("", None),
        ("at most 2", True),
        ("at most 1.9", False),
        ("at least 1e6", False),
        ("at most 1/7 x slow", False),
        ("at most 1/5 x slow", True),
        ("at least 2 x fast", True),
        ("at most 2; at most 1/7 x slow", False),
        ("at most 2 x absent", None),
        ("at most 1; at most 2 x absent", False),
        ("at most 2; at most 2 x absent", None),
    ],
)
def test_a_target_is_conditions_on_the_median(target: str, met: bool | None) -> None:
    """All conditions of a target must hold; one about a missing contestant is left out."""
    figures: dict[str, list[float]] = {"ours": [1.0, 2.0, 30.0], "slow": [10.0], "fast": [1.0], "absent": []}
    assert Row("row", "µs", figures, target).met is met


def test_a_target_that_says_nothing_is_an_error() -> None:
    """A target without a condition is an error, since a typing error must not turn it off."""
    with pytest.raises(ValueError, match="not a target"):
        _ = Row("row", "µs", {"ours": [1.0]}, "below 3").met


def test_the_table_has_a_line_for_each_contestant() -> None:
    """The relay comes first, with its ratio and verdict; a contestant that did not run has dashes."""
    figures: dict[str, list[float]] = {"ours": [3.0, 1.0, 2.0], "theirs": [4000.0], "absent": []}
    row = Row("thing", "µs", figures, "at most 1", baseline="theirs", note="absent is not installed")
    assert table([row]).splitlines()[2:] == [
        "| thing, µs (lower is better) | ours | 1 | 2 | 3 | 0.0005 x theirs | at most 1: **missed** |",
        "|  | theirs | 4,000 | 4,000 | 4,000 |  |  |",
        "|  | absent | - | - | - |  |  |",
        "",
        "thing: absent is not installed.",
    ]


def test_rows_are_appended_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row is one line, and existing lines of the file stay."""
    options = argparse.Namespace(json=tmp_path / "results", quick=True)
    row = Row("thing", "frames/s", {"ours": [2.0], "theirs": [1.0]}, "at least 1", "higher", "theirs")
    assert publish([row], options) is True
    assert publish([row], options) is True
    assert "frames/s (higher is better)" in capsys.readouterr().out
    first, second = map(json.loads, options.json.read_text(encoding="utf-8").splitlines())
    assert first == second
    assert first == {
        "name": "thing",
        "unit": "frames/s",
        "results": {"ours": [2.0], "theirs": [1.0]},
        "target": "at least 1",
        "better": "higher",
        "baseline": "theirs",
        "ratio": 2.0,
        "met": True,
        "note": "",
        "quick": True,
    }
