"""What a page of results is made of: percentiles, tables, and the parts of a page that are generated. PURE.

A generated part stands between two comments of Markdown, ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from _results import Row, figure

TITLES = ("what", "unit", "measured", "beside it", "ratio", "target")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the values, which are in ascending order, that ``percent`` of them do not exceed."""
    if not ordered:
        raise ValueError("no percentile of nothing")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def read_row(said: Mapping[str, Any]) -> Row:
    """A row out of what `_results.as_json` made of it."""
    return Row(**{name: said[name] for name in ("name", "unit", "results", "target", "better", "baseline", "note")})


def fill(page: str, parts: Mapping[str, str]) -> str:
    """The page with these generated parts replaced, the others as they are. Raises `ValueError` if one has no place."""
    for name, text in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
            raise ValueError(f"the page has no place for {name!r}")
        before, rest = page.split(begin)
        after = rest.split(end)[1]
        page = f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
    return page


def short_table(rows: Sequence[Row]) -> str:
    """One line of Markdown for each row: the judged contestant's median, least and most, and the others' medians."""
    lines = [_line(TITLES), "|---|---|---:|---|---:|---|"]
    lines += [_line(_cells(row)) for row in rows]
    notes = [f"* {row.name}: {row.note}." for row in rows if row.note]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _cells(row: Row) -> list[str]:
    others = [
        f"{who} {figure(statistics.median(values))}"
        for who, values in row.results.items()
        if who != row.ours and values
    ]
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return [row.name, row.unit, spread(row.results[row.ours]), ", ".join(others), ratio, readable(row.verdict())]


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    if not values:
        return "-"
    median = figure(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({figure(min(values))} to {figure(max(values))})"


def readable(target: str) -> str:
    """A target whose numbers are written as those that were measured."""
    return re.sub(r"\d[\d.]*(?:e\d+)?", lambda number: figure(float(number[0])), target)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def tally(rows: Sequence[Row]) -> str:
    """How many targets are met, and which are not."""
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    lines = [f"{len(judged) - len(missed)} of {len(judged)} targets are met."]
    if missed:
        lines += ["", "Missed:", "", *(f"* {row.name}: {_judged(row)}" for row in missed)]
    return "\n".join(lines) + "\n"


def _judged(row: Row) -> str:
    median = row.median(row.ours)
    return f"{'-' if median is None else figure(median)} {row.unit}, where {readable(row.target)} was aimed at."


def tables(text: str) -> str:
    """The tables in what a script printed, and nothing else of it."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", text, re.M)
    return "\n".join(found)
