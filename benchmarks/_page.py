"""Parts of the results page: percentiles, tables, and generated sections. PURE.

A generated section is between two Markdown comments, ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``.
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
    """Return the smallest of the sorted values that is at least as large as ``percent`` of them."""
    if not ordered:
        raise ValueError("no percentile of no values")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def read_row(said: Mapping[str, Any]) -> Row:
    """Return the row that `_results.as_json` has serialized."""
    return Row(**{name: said[name] for name in ("name", "unit", "results", "target", "better", "baseline", "note")})


def fill(page: str, parts: Mapping[str, str]) -> str:
    """Replace generated sections of a page. Raises `ValueError` if the page does not have a section exactly once."""
    for name, text in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
            raise ValueError(f"the page has no section {name!r}")
        before, rest = page.split(begin)
        after = rest.split(end)[1]
        page = f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
    return page


def short_table(rows: Sequence[Row]) -> str:
    """Format rows as Markdown, one line each: our median, minimum and maximum, and the medians of the others."""
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
    """Format median, minimum and maximum."""
    if not values:
        return "-"
    median = figure(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({figure(min(values))} to {figure(max(values))})"


def readable(target: str) -> str:
    """Format the numbers of a target like measured ones."""
    return re.sub(r"\d[\d.]*(?:e\d+)?", lambda number: figure(float(number[0])), target)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def tally(rows: Sequence[Row]) -> str:
    """Summarize how many targets are met, and list the others."""
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    lines = [f"{len(judged) - len(missed)} of {len(judged)} targets are met."]
    if missed:
        lines += ["", "Missed:", "", *(f"* {row.name}: {_judged(row)}" for row in missed)]
    return "\n".join(lines) + "\n"


def _judged(row: Row) -> str:
    median = row.median(row.ours)
    return f"{'-' if median is None else figure(median)} {row.unit}, but the target is {readable(row.target)}."


def tables(text: str) -> str:
    """Return the Markdown tables in a script's output."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", text, re.M)
    return "\n".join(found)
