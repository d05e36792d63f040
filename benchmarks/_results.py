"""Results of benchmarks: as rows of a Markdown table for people, and as JSON for programs.

This module does not measure anything. Numbers have the unit of their row.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal


def alternate(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> Mapping[str, list[float]]:
    """Measure all contestants in turn in each round, every other round in reverse, so that drift affects all."""
    results: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        order = list(contestants)
        for name in reversed(order) if number % 2 else order:
            results[name].append(contestants[name]())
    return results


@dataclass(frozen=True)
class Row:
    """Results by contestant. The first contestant is ours, the one that is judged.

    ``target`` is a list of conditions on its median, joined by semicolons: ``at most 150``, ``at least 1e6``,
    ``at most 1/7 x plain Autobahn`` (relative to another contestant's median). All of them must hold. ``better`` tells
    whether lower or higher numbers are better. The ratio that is shown is our median to that of the ``baseline``.
    ``note`` has further remarks, for example why something was left out.
    """

    name: str
    unit: str
    results: Mapping[str, Sequence[float]]
    target: str = ""
    better: Literal["lower", "higher"] = "lower"
    baseline: str | None = None
    note: str = ""

    @property
    def ours(self) -> str:
        """The contestant that is judged."""
        return next(iter(self.results))

    def median(self, contestant: str) -> float | None:
        """Return the median of a contestant's results; None if there are none."""
        found = self.results.get(contestant)
        return statistics.median(found) if found else None

    @property
    def ratio(self) -> float | None:
        """The ratio of our median to the baseline's; None if either is missing."""
        ours, other = self.median(self.ours), self.median(self.baseline) if self.baseline else None
        return ours / other if ours is not None and other else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none, or if results are missing."""
        verdicts = [self._meets(condition) for condition in self.target.split(";") if condition.strip()]
        if False in verdicts:
            return False
        return True if verdicts and None not in verdicts else None

    def _meets(self, condition: str) -> bool | None:
        found = re.fullmatch(r"(at most|at least) (\S+)(?: x (.+))?", condition.strip())
        if found is None:
            raise ValueError(f"not a target: {condition!r}")
        ours, bound = self.median(self.ours), float(Fraction(found[2]))
        if found[3]:
            bound *= self.median(found[3]) or math.nan
        if ours is None or math.isnan(bound):
            return None
        return ours <= bound if found[1] == "at most" else ours >= bound

    def verdict(self) -> str:
        """Return the target and whether it is met."""
        if not self.target:
            return ""
        return f"{self.target}: { ({True: 'met', False: '**missed**', None: 'not judged'}[self.met]) }"


TITLES = ("what", "contestant", "min", "median", "max", "ratio", "target")


def table(rows: Sequence[Row]) -> str:
    """Format rows as a Markdown table, one line for each contestant."""
    lines = ["| " + " | ".join(TITLES) + " |", "|---|---|---:|---:|---:|---:|---|"]
    for row in rows:
        arrow = "lower" if row.better == "lower" else "higher"
        for contestant, values in row.results.items():
            judged = contestant == row.ours
            what = f"{row.name}, {row.unit} ({arrow} is better)" if judged else ""
            figures = [figure(pick(values)) if values else "-" for pick in (min, statistics.median, max)]
            ratio = f"{row.ratio:.3g} x {row.baseline}" if judged and row.ratio is not None else ""
            lines.append("| " + " | ".join([what, contestant, *figures, ratio, row.verdict() if judged else ""]) + " |")
    lines += ["", *(f"{row.name}: {row.note}." for row in rows if row.note)]
    return "\n".join(lines).rstrip() + "\n"


def figure(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def publish(rows: Sequence[Row], options: argparse.Namespace) -> bool:
    """Print the table and `save` the rows; return whether all targets are met."""
    print(table(rows), flush=True)
    save(rows, options)
    return all(row.met is not False for row in rows)


def save(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Append the rows to the file of ``--json``, if given, one JSON object per line."""
    if options.json is not None:
        with options.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(as_json(row, quick=options.quick)) + "\n" for row in rows)


def as_json(row: Row, *, quick: bool = False) -> dict[str, object]:
    """Return all fields of a row, for JSON."""
    results = {name: list(values) for name, values in row.results.items()}
    said = {"name": row.name, "unit": row.unit, "results": results, "target": row.target, "better": row.better}
    return {**said, "baseline": row.baseline, "ratio": row.ratio, "met": row.met, "note": row.note, "quick": quick}
